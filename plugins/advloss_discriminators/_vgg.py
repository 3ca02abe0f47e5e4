"""The VGG-style discriminator of SRGAN and ESRGAN (Ledig et al. 2017, Wang et al. 2018)."""

from __future__ import annotations

from itertools import pairwise
from typing import final

from torch import Tensor, nn

from advloss import Condition
from advloss_discriminators._layers import NORMS, conv_block, convolution, initialize_leaky, spectral_normalize
from advloss_discriminators._options import check_choice, check_positive, halvings


@final
class VGGDiscriminator(nn.Module):
    """Pairs of conv3 and conv4 with stride 2 down to 4 x 4, LeakyReLU 0.2, then dense 100 and 1 (arXiv:1809.00219).

    The first layer has no norm. The width doubles with each pair, up to eight times `width`.

    Args:
        in_channels: channels of the images.
        width: channels after the first layer.
        resolution: side length of the images: a power of two, 8 or more; 128 for the paper's crops.
        norm: ``"batch"`` (the paper's), ``"instance"``, ``"group"``, ``"spectral"`` (on every layer) or ``"none"``.
    """

    dims = 2

    def __init__(self, *, in_channels: int = 3, width: int = 64, resolution: int = 128, norm: str = "batch") -> None:
        super().__init__()
        check_positive(in_channels=in_channels, width=width)
        check_choice(NORMS, norm=norm)
        pairs = halvings(resolution, range(4, 5))
        self.in_channels, self.resolution, self.smallest = in_channels, resolution, resolution
        self.batch_coupled = norm == "batch"
        widths = [width * min(2**level, 8) for level in range(pairs)]
        layers = [convolution(in_channels, width, 3, 1), nn.LeakyReLU(0.2), *conv_block(width, width, 4, 2, norm=norm)]
        for before, after in pairwise(widths):
            layers += conv_block(before, after, 3, 1, norm=norm)
            layers += conv_block(after, after, 4, 2, norm=norm)
        dense = [nn.Linear(widths[-1] * 16, 100), nn.LeakyReLU(0.2), nn.Linear(100, 1)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), *dense)
        self.apply(initialize_leaky)
        if norm == "spectral":
            spectral_normalize(self)

    def forward(self, samples: Tensor, condition: Condition | None = None) -> Tensor:
        """Logits `(N,)` of `samples` `(N, in_channels, resolution, resolution)`."""
        return self.layers(samples).squeeze(1)
