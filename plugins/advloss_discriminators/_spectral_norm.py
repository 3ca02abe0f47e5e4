"""SN-GAN's discriminators (Miyato et al. 2018)."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn

from advloss import Condition
from advloss_discriminators._layers import spectral_normalize
from advloss_discriminators._trunks import ResidualTrunk, make_trunk


@final
class SpectralNormDiscriminator(nn.Module):
    """Every layer divided by its largest singular value (arXiv:1802.05957, eq. 8; architectures of appendix B.4).

    One power iteration runs in each forward in training mode (algorithm 1), none in eval mode.

    Args:
        in_channels: channels of the images.
        width: channels after the first layer; None is the paper's, 64, or 128 for a residual one below 64 x 64.
        resolution: side length of the images: 4 to 7 times a power of two, 8 or more. The depth follows.
        architecture: ``"convolutional"`` (table 3: conv layers, then dense on what is left of the image) or
            ``"residual"`` (tables 4 and 6: residual blocks, sum over positions, dense).
    """

    dims = 2
    batch_coupled = False

    def __init__(
        self,
        *,
        in_channels: int = 3,
        width: int | None = None,
        resolution: int = 32,
        architecture: str = "convolutional",
    ) -> None:
        super().__init__()
        self.trunk = make_trunk(architecture, in_channels, width, resolution)
        self.in_channels, self.resolution, self.smallest = in_channels, resolution, resolution
        self.pooled = isinstance(self.trunk, ResidualTrunk)
        self.dense = nn.Linear(self.trunk.features * (1 if self.pooled else self.trunk.side**2), 1)
        spectral_normalize(self)

    def forward(self, samples: Tensor, condition: Condition | None = None) -> Tensor:
        """Logits `(N,)` of `samples` `(N, in_channels, resolution, resolution)`."""
        features = self.trunk(samples)
        return self.dense(features.sum((2, 3)) if self.pooled else features.flatten(1)).squeeze(1)
