"""Instance noise (Sønderby et al. 2016; Arjovsky and Bottou 2017)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from advloss import Augmentation, InputError, Logits, OptionError


@final
class InstanceNoise(Augmentation):
    """``x + sigma_t eps``, eps normal: both distributions are widened until they overlap (arXiv:1610.04490).

    With `decay_steps`, ``sigma_t = sigma max(0, 1 - t / decay_steps)`` after t steps of the discriminator.
    Takes `(N, C, ...)` of any number of dimensions and returns the same shape.

    Args:
        sigma: standard deviation in units of the samples (images lie in [-1, 1]). 0.1 is a customary value;
            the papers leave it to the data.
        decay_steps: the noise fades linearly to zero over so many steps; None keeps it.

    Attributes:
        step: steps taken, a scalar buffer.

    Raises:
        OptionError: an option outside these.
        InputError: samples that are no floating-point tensor.
    """

    step: Tensor

    def __init__(self, *, sigma: float = 0.1, decay_steps: int | None = None) -> None:
        super().__init__()
        if not sigma >= 0:
            raise OptionError(f"InstanceNoise: sigma={sigma!r}; give a number that is not negative, such as 0.1")
        if decay_steps is not None and not (isinstance(decay_steps, int) and decay_steps >= 1):
            raise OptionError(f"InstanceNoise: decay_steps={decay_steps!r}; give a whole number of steps, or None")
        self.sigma, self.decay_steps = float(sigma), decay_steps
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    def forward(self, samples: Tensor) -> Tensor:
        if not samples.is_floating_point():
            raise InputError(f"instance noise is added to floating-point samples; given: {samples.dtype}")
        noise = torch.randn_like(samples)
        if self.decay_steps is None:
            return samples + self.sigma * noise
        left = (1 - self.step / self.decay_steps).clamp(min=0)
        return samples + (self.sigma * left).to(samples) * noise

    def after_step(self, discriminator: nn.Module, real_logits: Logits, fake_logits: Logits) -> None:
        """Count the step."""
        self.step += 1
