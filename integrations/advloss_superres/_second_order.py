"""The degradation of Real-ESRGAN: blur, resize, noise and JPEG, twice, and a last ringing (arXiv:2107.10833)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor
from torch.nn import functional

from advloss_superres._bicubic import check_scale, low_size, round_to_bytes
from advloss_superres._jpeg import jpeg
from advloss_superres._kernels import Shape, blur_kernel, convolve, sinc_kernel

Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One round of degradations; the defaults are the paper's first (section 4.1, and its released options).

    Attributes:
        blur: probability of a blur.
        sigma: of blur kernels, in pixels.
        resize: probabilities to enlarge, to shrink, and to keep the size.
        factor: the sides' factors when shrunk at most and enlarged at most.
        noise: standard deviation of Gaussian noise, of 255.
        poisson: factor of Poisson noise.
        quality: of JPEG.
    """

    blur: float = 1.0
    sigma: Range = (0.2, 3.0)
    resize: tuple[float, float, float] = (0.2, 0.7, 0.1)
    factor: Range = (0.15, 1.5)
    noise: Range = (1.0, 30.0)
    poisson: Range = (0.05, 3.0)
    quality: Range = (30, 95)


FIRST = Stage()
SECOND = Stage(
    blur=0.8, sigma=(0.2, 1.5), resize=(0.3, 0.4, 0.3), factor=(0.3, 1.2), noise=(1.0, 25.0), poisson=(0.05, 2.5)
)
SHAPES: tuple[Shape, ...] = ("gaussian", "generalized", "plateau")
SHAPE_SHARES = (0.7, 0.15, 0.15)
SINC, LAST_SINC, GREY_NOISE = 0.1, 0.8, 0.4
MODES = ("area", "bilinear", "bicubic")


@final
class SecondOrder:
    """Every image is degraded in its own way, drawn from the generator on the CPU: the same on every device.

    Args:
        scale: how many times the sides shrink.
        first, second: the two rounds.
    """

    margin = 8

    def __init__(self, scale: int, first: Stage = FIRST, second: Stage = SECOND) -> None:
        check_scale(scale)
        self.scale, self.first, self.second = scale, first, second

    def __call__(self, high: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """`(N, C, H, W)`, of 3 channels or grey, in [-1, 1] to `(N, C, H / scale, W / scale)`, rounded to 8 bits.

        Args:
            generator: on the CPU; None: torch's global one.

        Raises:
            InputError: a side is no multiple of the scale, or other channels.
        """
        size = low_size(high, self.scale)
        draw = _Draw(generator)
        return torch.cat([self._one((image[None] + 1) / 2, size, draw) for image in high])

    def _one(self, image: Tensor, size: tuple[int, int], draw: _Draw) -> Tensor:
        whole = (image.shape[-2], image.shape[-1])
        image = _noise_and_resize(_blur(image, self.first, draw), self.first, whole, draw)
        image = jpeg(image.clamp(0, 1), draw.whole(*self.first.quality))
        image = _noise_and_resize(_blur(image, self.second, draw), self.second, size, draw)
        quality = draw.whole(*self.second.quality)
        kernel = _sinc(draw) if draw.chance(LAST_SINC) else None
        compress_first = draw.chance(0.5)
        if compress_first:
            image = jpeg(image.clamp(0, 1), quality)
        image = _resize(image, size, draw)
        image = image if kernel is None else convolve(image, kernel)
        if not compress_first:
            image = jpeg(image.clamp(0, 1), quality)
        return round_to_bytes(image * 2 - 1)


class _Draw:
    """Numbers from a generator."""

    def __init__(self, generator: torch.Generator | None) -> None:
        self.generator = generator

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def whole(self, low: float, high: float) -> int:
        return int(torch.randint(int(low), int(high) + 1, (), generator=self.generator))

    def chance(self, probability: float) -> bool:
        return self.between(0, 1) < probability

    def place(self, shares: tuple[float, ...]) -> int:
        return int(torch.multinomial(torch.tensor(shares, dtype=torch.float32), 1, generator=self.generator))


def _blur(image: Tensor, stage: Stage, draw: _Draw) -> Tensor:
    if not draw.chance(stage.blur):
        return image
    if draw.chance(SINC):
        return convolve(image, _sinc(draw))
    size = _kernel_size(draw)
    first = draw.between(*stage.sigma)
    isotropic = draw.chance(0.5)
    sigma = (first, first) if isotropic else (first, draw.between(*stage.sigma))
    angle = draw.between(-math.pi, math.pi)
    shape = SHAPES[draw.place(SHAPE_SHARES)]
    beta = draw.between(0.5, 4.0) if shape == "generalized" else draw.between(1.0, 2.0)
    return convolve(image, blur_kernel(size, sigma, angle, shape, beta))


def _noise_and_resize(image: Tensor, stage: Stage, about: tuple[int, int], draw: _Draw) -> Tensor:
    """Resize to a random factor of `about`, then noise."""
    kind = draw.place(stage.resize)
    factor = (draw.between(1, stage.factor[1]), draw.between(stage.factor[0], 1), 1.0)[kind]
    image = _resize(image, (max(1, int(about[0] * factor)), max(1, int(about[1] * factor))), draw)
    grey = draw.chance(GREY_NOISE)
    if draw.chance(0.5):
        shape = (1, 1 if grey else image.shape[1], *image.shape[2:])
        noise = draw.between(*stage.noise) / 255 * torch.randn(shape, generator=draw.generator)
    else:
        clean = image.clamp(0, 1).cpu()
        clean = clean.mean(1, keepdim=True) if grey else clean
        noise = draw.between(*stage.poisson) * (torch.poisson(clean * 255, generator=draw.generator) / 255 - clean)
    return (image + noise.to(image.device)).clamp(0, 1)


def _resize(image: Tensor, size: tuple[int, int], draw: _Draw) -> Tensor:
    mode = MODES[draw.whole(0, len(MODES) - 1)]
    if (image.shape[-2], image.shape[-1]) == size:
        return image
    return functional.interpolate(image, size=size, mode=mode).clamp(0, 1)


def _sinc(draw: _Draw) -> Tensor:
    size = _kernel_size(draw)
    return sinc_kernel(size, draw.between(math.pi / 3 if size < 13 else math.pi / 5, math.pi))


def _kernel_size(draw: _Draw) -> int:
    """7, 9, ..., 21."""
    return 7 + 2 * draw.whole(0, 7)
