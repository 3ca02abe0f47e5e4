"""DCGAN's generator (Radford et al. 2016)."""

from __future__ import annotations

from itertools import pairwise
from typing import final

from torch import Tensor, nn

from advloss_gan.generators._inputs import check_positive, doublings, join


@final
class DCGANGenerator(nn.Module):
    """Transposed convolutions 4 wide with stride 2 from 4 x 4 up, batch norm and ReLU, then tanh (arXiv:1511.06434).

    Weights start as N(0, 0.02), those of norm layers as N(1, 0.02).

    Args:
        latent_features: length of the noise.
        out_channels: channels of the images.
        width: channels before the last layer; they double with each halving of the side, up to eight times.
        resolution: side length of the images: a power of two, 8 or more.
        num_classes: number of classes; they enter beside the noise (arXiv:1411.1784).
    """

    def __init__(
        self,
        *,
        latent_features: int = 100,
        out_channels: int = 3,
        width: int = 64,
        resolution: int = 64,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        check_positive(latent_features=latent_features, out_channels=out_channels, width=width, num_classes=num_classes)
        self.latent_features, self.num_classes = latent_features, num_classes
        widths = [width * min(2**level, 8) for level in reversed(range(doublings(resolution)))]
        first = nn.ConvTranspose2d(latent_features + (num_classes or 0), widths[0], 4, bias=False)
        layers: list[nn.Module] = [first, nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for before, after in pairwise(widths):
            layers += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.ConvTranspose2d(width, out_channels, 4, 2, 1), nn.Tanh())
        self.apply(_initialize)

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images `(N, out_channels, resolution, resolution)` in [-1, 1] from noise and labels `(N,)`."""
        joined = join(latent, labels, self.latent_features, self.num_classes)
        images: Tensor = self.layers(joined[:, :, None, None])
        return images


def _initialize(module: nn.Module) -> None:
    if isinstance(module, (nn.ConvTranspose2d, nn.BatchNorm2d)):
        nn.init.normal_(module.weight, 1.0 if isinstance(module, nn.BatchNorm2d) else 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
