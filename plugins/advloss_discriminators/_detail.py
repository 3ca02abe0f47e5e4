"""A small PatchGAN that judges detail alone."""

from __future__ import annotations

import math
from typing import final

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad

from advloss import Condition, InputError, OptionError
from advloss_discriminators._layers import convolution
from advloss_discriminators._options import check_positive


@final
class DetailDiscriminator(nn.Module):
    """Logits of patches of what a blur of 3 x 3 pixels removes, enlarged: ``layers(gain * (x - blur(x)))``.

    Beside a reconstruction or pixel loss, which knows brightness and colour better, an adversary is there for detail. A
    PatchGAN on whole images sees that last, as it is small beside the rest; this one says nothing about the rest. Two
    convolutions of stride 2 and two of stride 1, as in PatchGAN (arXiv:1611.07004, appendix 6.1.2), without norm; give it
    a little R1, such as ``"r1": {"weight": 1e-4}``. Sides of the map of logits are a quarter of the images'.

    Args:
        in_channels: channels of the images.
        width: channels after the first convolution; twice that after the others.
        gain: what detail is multiplied by.
    """

    dims = 2
    smallest = 4
    batch_coupled = False

    def __init__(self, *, in_channels: int = 3, width: int = 32, gain: float = 8.0) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, width=width)
        if isinstance(gain, bool) or not isinstance(gain, (int, float)) or not 0 < gain < math.inf:
            raise OptionError(f"gain={gain!r}: give a finite number above 0")
        self.in_channels, self.gain = in_channels, gain
        self.layers = nn.Sequential(
            convolution(in_channels, width, 4, 2),
            nn.LeakyReLU(0.2),
            convolution(width, 2 * width, 4, 2),
            nn.LeakyReLU(0.2),
            convolution(2 * width, 2 * width, 3, 1),
            nn.LeakyReLU(0.2),
            convolution(2 * width, 1, 3, 1),
        )

    def forward(self, samples: Tensor, condition: Condition | None = None) -> Tensor:
        """Logits `(N, 1, H // 4, W // 4)` of `samples` `(N, in_channels, H, W)`.

        Raises:
            InputError: the samples are no images.
        """
        if samples.dim() != 4:
            raise InputError(f"samples have shape {tuple(samples.shape)}; give images (N, channels, height, width)")
        blurred = avg_pool2d(pad(samples, (1, 1, 1, 1), mode="reflect"), 3, 1)
        logits: Tensor = self.layers(self.gain * (samples - blurred))
        return logits
