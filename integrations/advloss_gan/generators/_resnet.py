"""SN-GAN's residual generator (Miyato et al. 2018)."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn
from torch.nn.functional import interpolate, relu

from advloss_gan.generators._inputs import check_positive, doublings, join


@final
class ResNetGenerator(nn.Module):
    """Dense to 4 x 4, residual blocks that double the side, batch norm, ReLU, conv3, tanh (arXiv:1802.05957, table 4).

    Glorot's initialization, as in the paper's code.

    Args:
        latent_features: length of the noise.
        out_channels: channels of the images.
        width: channels of every block; 256 is the paper's for CIFAR-10.
        resolution: side length of the images: a power of two, 8 or more.
        num_classes: number of classes; they enter beside the noise.
    """

    def __init__(
        self,
        *,
        latent_features: int = 128,
        out_channels: int = 3,
        width: int = 256,
        resolution: int = 32,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        check_positive(latent_features=latent_features, out_channels=out_channels, width=width, num_classes=num_classes)
        self.latent_features, self.num_classes, self.width = latent_features, num_classes, width
        self.dense = nn.Linear(latent_features + (num_classes or 0), 16 * width)
        self.blocks = nn.Sequential(*(ResidualBlock(width) for _ in range(doublings(resolution))))
        self.norm = nn.BatchNorm2d(width)
        self.last = nn.Conv2d(width, out_channels, 3, padding=1)
        for layer in (self.dense, self.last):
            nn.init.xavier_uniform_(layer.weight)

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images `(N, out_channels, resolution, resolution)` in [-1, 1] from noise and labels `(N,)`."""
        joined = join(latent, labels, self.latent_features, self.num_classes)
        hidden = self.blocks(self.dense(joined).view(-1, self.width, 4, 4))
        images: Tensor = self.last(relu(self.norm(hidden))).tanh()
        return images


@final
class ResidualBlock(nn.Module):
    """``up(x) + conv3(relu(norm(conv3(up(relu(norm(x)))))))``; the skip's 1 x 1 convolution commutes with `up`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.conv1, self.conv2 = (nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.skip = nn.Conv2d(width, width, 1)
        for layer, gain in ((self.conv1, 2**0.5), (self.conv2, 2**0.5), (self.skip, 1.0)):
            nn.init.xavier_uniform_(layer.weight, gain)

    def forward(self, inputs: Tensor) -> Tensor:
        """`(N, width, H, W)` to `(N, width, 2 H, 2 W)`."""
        hidden = self.conv1(interpolate(relu(self.norm1(inputs)), scale_factor=2.0))
        hidden = self.conv2(relu(self.norm2(hidden)))
        return hidden + interpolate(self.skip(inputs), scale_factor=2.0)
