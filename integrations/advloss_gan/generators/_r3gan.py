"""R3GAN's generator (Huang et al. 2024)."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar, final

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from advloss import OptionError
from advloss_gan.generators._inputs import check_positive, doublings, join

_Layer = TypeVar("_Layer", nn.Conv2d, nn.Linear)

_GAIN = (2 / (1 + 0.2**2)) ** 0.5  # keeps the variance through LeakyReLU 0.2
_GROUP = 16  # channels of one group of the grouped convolutions


@final
class R3GANGenerator(nn.Module):
    """The discriminator of the same paper mirrored: no normalization, no noise, no tanh (arXiv:2501.05441, section 3).

    A learned 4 x 4 pattern for each channel is scaled by a dense layer of the noise; stages of residual blocks follow,
    doubled by bilinear interpolation. Initialization is fix-up's.

    Args:
        latent_features: length of the noise.
        out_channels: channels of the images.
        width: channels at 32 x 32 and below; they halve with each doubling of the side beyond. Multiples of 8.
        resolution: side length of the images: a power of two, 8 or more.
        depth: residual blocks a stage.
        num_classes: number of classes; they enter beside the noise.
    """

    def __init__(
        self,
        *,
        latent_features: int = 64,
        out_channels: int = 3,
        width: int = 768,
        resolution: int = 32,
        depth: int = 2,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        check_positive(latent_features=latent_features, out_channels=out_channels, width=width, depth=depth)
        check_positive(num_classes=num_classes)
        stages = doublings(resolution) + 1
        widths = [width // max(1, (4 << stage) // 32) for stage in range(stages)]
        factor = width // widths[-1] * 8
        if width % factor:
            raise OptionError(f"width={width}: give a multiple of {factor} for resolution={resolution}")
        self.latent_features, self.num_classes = latent_features, num_classes
        scale = (stages * depth) ** -0.25  # L^(-1 / (2m - 2)) for L blocks of m = 3 layers
        self.dense = _normal(nn.Linear(latent_features + (num_classes or 0), width, bias=False))
        self.basis = nn.Parameter(torch.randn(width, 4, 4))
        self.stages = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(channels, scale) for _ in range(depth))) for channels in widths
        )
        self.transitions = nn.ModuleList(
            nn.Identity() if before == after else _normal(nn.Conv2d(before, after, 1, bias=False))
            for before, after in pairwise(widths)
        )
        self.last = _normal(nn.Conv2d(widths[-1], out_channels, 1, bias=False))

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images `(N, out_channels, resolution, resolution)` from noise and labels `(N,)`."""
        joined = join(latent, labels, self.latent_features, self.num_classes)
        hidden = self.stages[0](self.dense(joined)[:, :, None, None] * self.basis)
        for transition, stage in zip(self.transitions, list(self.stages)[1:]):
            hidden = stage(interpolate(transition(hidden), scale_factor=2.0, mode="bilinear"))
        images: Tensor = self.last(hidden)
        return images


@final
class ResidualBlock(nn.Module):
    """``x + conv1(lrelu(gconv3(lrelu(conv1(x)))))``, twice as wide within, in groups of 16 channels (figure 3)."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        inner = 2 * channels
        self.expand = _normal(nn.Conv2d(channels, inner, 1), _GAIN * scale)
        self.mix = _normal(nn.Conv2d(inner, inner, 3, padding=1, groups=inner // _GROUP), _GAIN * scale)
        self.reduce = _normal(nn.Conv2d(inner, channels, 1, bias=False), 0.0)

    def forward(self, inputs: Tensor) -> Tensor:
        """`(N, channels, H, W)` to the same shape."""
        hidden = leaky_relu(self.expand(inputs), 0.2)
        hidden = leaky_relu(self.mix(hidden), 0.2)
        return inputs + self.reduce(hidden)


def _normal(layer: _Layer, gain: float = 1.0) -> _Layer:
    """`layer` with weights N(0, gain^2 / fan_in) and no bias."""
    nn.init.normal_(layer.weight, 0.0, gain * layer.weight[0].numel() ** -0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
