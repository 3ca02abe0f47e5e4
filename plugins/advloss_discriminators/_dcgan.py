"""DCGAN's discriminator (Radford et al. 2016)."""

from __future__ import annotations

from itertools import pairwise
from typing import final

from torch import Tensor, nn

from advloss import Condition
from advloss_discriminators._embedding import embed, project
from advloss_discriminators._layers import NORMS, conv_block, convolution, initialize_normal, spectral_normalize
from advloss_discriminators._options import check_choice, check_optional, check_positive, halvings


@final
class DCGANDiscriminator(nn.Module):
    """Convolutions 4 wide with stride 2 down to 4 x 4, LeakyReLU 0.2, then dense (arXiv:1511.06434, section 3).

    The first layer has no norm. The width doubles with each layer, up to eight times `width`.
    Weights start as N(0, 0.02), those of norm layers as N(1, 0.02).

    Args:
        in_channels: channels of the images.
        width: channels after the first layer.
        resolution: side length of the images: a power of two, 8 or more.
        norm: ``"batch"`` (the paper's), ``"instance"``, ``"group"``, ``"spectral"`` (on every layer) or ``"none"``.
        num_classes: number of classes; they enter by projection on the features summed over positions
            (arXiv:1802.05637), which the paper does not have.
    """

    dims = 2

    def __init__(
        self,
        *,
        in_channels: int = 3,
        width: int = 64,
        resolution: int = 64,
        norm: str = "batch",
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, width=width)
        check_choice(NORMS, norm=norm)
        check_optional(num_classes=num_classes)
        depth = halvings(resolution, range(4, 5))
        self.in_channels, self.num_classes = in_channels, num_classes
        self.resolution, self.smallest = resolution, resolution
        self.batch_coupled = norm == "batch" and depth > 1  # the first layer has no norm
        widths = [width * min(2**level, 8) for level in range(depth)]
        layers = [convolution(in_channels, width, 4, 2), nn.LeakyReLU(0.2)]
        for before, after in pairwise(widths):
            layers += conv_block(before, after, 4, 2, norm=norm)
        self.layers = nn.Sequential(*layers)
        self.dense = nn.Linear(widths[-1] * 16, 1)
        self.apply(initialize_normal)
        self.embedding = embed(widths[-1], num_classes, None, None)
        if norm == "spectral":
            spectral_normalize(self)

    def forward(self, samples: Tensor, condition: Condition | None = None) -> Tensor:
        """Logits `(N,)` of `samples` `(N, in_channels, resolution, resolution)`.

        Raises:
            InputError: the class is missing.
        """
        features = self.layers(samples)
        logits = self.dense(features.flatten(1)).squeeze(1)
        return logits + project(self.embedding, features.sum((2, 3)), condition)
