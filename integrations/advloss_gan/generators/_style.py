"""A compact style-based generator (Karras et al. 2019, 2020)."""

from __future__ import annotations

import math
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate, leaky_relu, linear

from advloss import InputError
from advloss_gan.generators._inputs import check_positive, doublings, join


@final
class StyleGenerator(nn.Module):
    """Mapping network, modulated convolutions with noise in every layer, and images that add up (arXiv:1912.04958).

    From 4 x 4 up, each stage doubles the side, convolves twice (once at 4 x 4) and adds an image to the sum of those
    before ("skip", figure 7). Weights start as N(0, 1) and are scaled in each forward ("equalized learning rate").
    There is no path length regularization and no style mixing.

    Args:
        latent_features: length of the noise z, and of the styles w.
        out_channels: channels of the images.
        width: channels at full resolution; they double with each halving of the side, up to 512.
        resolution: side length of the images: a power of two, 8 or more.
        mapping_depth: dense layers from z to w; their learning rate is a hundredth of the others'.
        num_classes: number of classes; they enter beside z.

    Attributes:
        layers: how many styles `synthesize` takes: one for each convolution, images included.
        grown: stages that run, 1 for 4 x 4 alone; with a fraction the last of them fades in. Whole from the start:
            progressive growing (`Growth`) sets it.
    """

    def __init__(
        self,
        *,
        latent_features: int = 64,
        out_channels: int = 3,
        width: int = 32,
        resolution: int = 64,
        mapping_depth: int = 4,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        check_positive(latent_features=latent_features, out_channels=out_channels, width=width)
        check_positive(mapping_depth=mapping_depth, num_classes=num_classes)
        self.latent_features, self.num_classes, self.resolution = latent_features, num_classes, resolution
        levels = doublings(resolution)
        widths = [min(width * 2**level, max(512, width)) for level in reversed(range(levels + 1))]
        inputs = [latent_features + (num_classes or 0)] + [latent_features] * (mapping_depth - 1)
        self.mapping = nn.ModuleList(Dense(features, latent_features, rate=0.01) for features in inputs)
        self.constant = nn.Parameter(torch.randn(1, widths[0], 4, 4))
        stages = [
            Stage(before, after, 4 << level, latent_features, out_channels, first=level == 0)
            for level, (before, after) in enumerate(zip([widths[0], *widths], widths))
        ]
        self.stages = nn.ModuleList(stages)
        self.splits = [stage.layers for stage in stages]
        self.layers = sum(self.splits)
        self.grown = float(len(stages))

    def forward(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        """Images `(N, out_channels, resolution, resolution)` from noise z and labels `(N,)`."""
        return self.synthesize(self.styles(latent, labels))

    def styles(self, latent: Tensor, labels: Tensor | None = None) -> Tensor:
        """w `(N, latent_features)` from z `(N, latent_features)`, whose length does not count, and labels."""
        length = latent.square().mean(1, keepdim=True).add(1e-8).sqrt()
        hidden = join(latent / length, labels, self.latent_features, self.num_classes)
        for layer in self.mapping:
            hidden = activate(layer(hidden))
        return hidden

    def synthesize(self, styles: Tensor) -> Tensor:
        """Images from w `(N, latent_features)`, or w+ `(N, layers, latent_features)`, a style for each layer.

        In eval mode the noise is always the same; in training mode it is drawn anew.

        Raises:
            InputError: styles of another shape.
        """
        if styles.ndim == 2:
            styles = styles[:, None].expand(-1, self.layers, -1)
        if styles.ndim != 3 or styles.shape[1:] != (self.layers, self.latent_features):
            raise InputError(
                f"styles have shape {tuple(styles.shape)}; give w (N, {self.latent_features}) or w+ "
                f"(N, {self.layers}, {self.latent_features})"
            )
        first, *rest = styles.split(self.splits, dim=1)
        hidden, image = self.stages[0](self.constant.expand(len(styles), -1, -1, -1), None, first)
        before: Tensor = image
        for stage, own in zip(list(self.stages)[1 : math.ceil(self.grown)], rest):
            before = image
            hidden, image = stage(hidden, image, own)
        if fade := self.grown % 1:
            image = double(before).lerp(image, fade)
        while image.shape[-1] < self.resolution:
            image = interpolate(image, scale_factor=2.0)
        return image


@final
class Stage(nn.Module):
    """All that happens at one resolution: doubling, convolutions, and the image."""

    def __init__(
        self, in_channels: int, width: int, side: int, features: int, out_channels: int, *, first: bool
    ) -> None:
        super().__init__()
        self.first = first
        inputs = [in_channels] if first else [in_channels, width]
        self.convolutions = nn.ModuleList(StyledConv(channels, width, 3, side, features) for channels in inputs)
        self.to_image = StyledConv(width, out_channels, 1, None, features)
        self.layers = len(inputs) + 1

    def forward(self, hidden: Tensor, image: Tensor | None, styles: Tensor) -> tuple[Tensor, Tensor]:
        """Features and image so far, with this stage's."""
        if not self.first:
            hidden = double(hidden)
        for place, convolution in enumerate(self.convolutions):
            hidden = convolution(hidden, styles[:, place])
        own = self.to_image(hidden, styles[:, -1])
        return hidden, own if image is None else double(image) + own


@final
class StyledConv(nn.Module):
    """Convolution whose inputs are scaled by a style; with `side`, demodulated, with noise and activation.

    Scaling inputs and outputs is the same as scaling the weights (arXiv:1912.04958, equations 1 to 3), and needs no
    weights of its own for each sample.
    """

    noise: Tensor

    def __init__(self, in_channels: int, out_channels: int, kernel: int, side: int | None, features: int) -> None:
        super().__init__()
        self.style = Dense(features, in_channels, bias=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels, 1, 1))
        self.gain = (in_channels * kernel**2) ** -0.5
        self.side = side
        if side is not None:
            self.strength = nn.Parameter(torch.zeros(()))
            self.register_buffer("noise", torch.randn(1, 1, side, side))

    def forward(self, inputs: Tensor, style: Tensor) -> Tensor:
        """`(N, in_channels, H, W)` under w `(N, features)` to `(N, out_channels, H, W)`."""
        weight, scale = self.weight * self.gain, self.style(style)
        hidden = conv2d(inputs * scale[:, :, None, None], weight, padding=weight.shape[-1] // 2)
        if self.side is None:
            return hidden + self.bias
        variance = scale.square() @ weight.square().sum((2, 3)).T
        hidden = hidden * (variance + 1e-8).rsqrt()[:, :, None, None]
        noise = hidden.new_empty(len(hidden), 1, *hidden.shape[2:]).normal_() if self.training else self.noise
        return activate(hidden + self.strength * noise + self.bias)


@final
class Dense(nn.Module):
    """Dense layer with weights divided by the root of their fan-in, at `rate` times the learning rate."""

    def __init__(self, in_features: int, out_features: int, *, bias: float = 0.0, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / rate)
        self.bias = nn.Parameter(torch.full((out_features,), bias / rate))
        self.rate = rate

    def forward(self, inputs: Tensor) -> Tensor:
        """`(N, in_features)` to `(N, out_features)`."""
        return linear(inputs, self.weight * (self.rate * inputs.shape[1] ** -0.5), self.bias * self.rate)


def double(images: Tensor) -> Tensor:
    """Twice as high and wide, by the low-pass filter that StyleGAN2 also halves with."""
    return interpolate(images, scale_factor=2.0, mode="bilinear")


def activate(inputs: Tensor) -> Tensor:
    """LeakyReLU 0.2 times sqrt 2, which keeps the second moment."""
    return leaky_relu(inputs, 0.2) * 2**0.5
