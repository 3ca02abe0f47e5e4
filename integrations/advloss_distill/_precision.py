"""Mixed precision: does the accelerator compute in it, and can the networks?"""

from __future__ import annotations

from accelerate import Accelerator

from advloss import OptionError
from advloss_distill._denoiser import Denoiser


def check_precision(accelerator: Accelerator, denoiser: Denoiser) -> None:
    """Raise OptionError where the accelerator would not compute in its mixed precision, or these networks break in it."""
    precision, device = accelerator.mixed_precision, accelerator.device.type
    if device == "cpu" and precision != "no" and not accelerator.native_amp:
        raise OptionError(
            f"mixed precision {precision} on the {device}: Accelerate would compute in 32 bits without a word. Take bf16, or no "
            "(--mixed-precision, or in Accelerate's configuration)"
        )
    if precision in denoiser.breaks_in:
        raise OptionError(
            f"a {getattr(denoiser, 'name', type(denoiser).__name__)} cannot be trained in {precision}, in which its network "
            "gives NaN. Take bf16 (--mixed-precision, or in Accelerate's configuration)"
        )
