"""Bicubic resampling as the field does it: wider kernels when shrinking, Keys' cubic with a = -1/2."""

from __future__ import annotations

from typing import Protocol, final

import torch
from torch import Tensor
from torch.nn import functional

from advloss import InputError, OptionError


class Degradation(Protocol):
    """What makes low-resolution images.

    Attributes:
        scale: how many times the sides shrink.
        margin: low-resolution pixels around a crop that may depend on what was cut away.
    """

    scale: int
    margin: int

    def __call__(self, high: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """`(N, C, H, W)` in [-1, 1], sides multiples of `scale`, to `(N, C, H / scale, W / scale)`."""
        ...


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """`images` `(N, C, H, W)` at another size: Pillow's bicubic, antialiased where they shrink; not clamped."""
    return functional.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False)


def enlarge(low: Tensor, scale: int) -> Tensor:
    """`(N, C, H, W)` in [-1, 1] to `scale` times the sides: the baseline that every network must beat."""
    height, width = low.shape[-2:]
    return resize(low, (height * scale, width * scale)).clamp(-1, 1)


@final
class Bicubic:
    """Bicubic shrinking with antialias, rounded to 8 bits as a file would be.

    Args:
        scale: 1 changes nothing but the rounding.
    """

    margin = 4  # the kernel is 2 low-resolution pixels wide on either side

    def __init__(self, scale: int) -> None:
        check_scale(scale)
        self.scale = scale

    def __call__(self, high: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """`(N, C, H, W)` in [-1, 1] to `(N, C, H / scale, W / scale)`.

        Raises:
            InputError: a side is no multiple of the scale.
        """
        return round_to_bytes(resize(high, low_size(high, self.scale)))


def low_size(high: Tensor, scale: int) -> tuple[int, int]:
    """Height and width of the low-resolution images of `high`.

    Raises:
        InputError: a side is no multiple of the scale.
    """
    height, width = high.shape[-2:]
    if height % scale or width % scale:
        raise InputError(f"images have sides {(height, width)}, which {scale} does not divide: cut them first")
    return height // scale, width // scale


def round_to_bytes(images: Tensor) -> Tensor:
    """[-1, 1], clamped, to the nearest of 256 values."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def check_scale(scale: int) -> None:
    """Raise OptionError unless it is a whole number, 1 or more."""
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 1:
        raise OptionError(f"scale={scale!r}: give a whole number, such as 2, 3 or 4")
