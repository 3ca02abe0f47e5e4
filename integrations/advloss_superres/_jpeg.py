"""JPEG compression of tensors: what a file of that quality would hold (ITU-T T.81; quality as libjpeg scales its tables)."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from advloss import InputError, OptionError

# T.81, annex K.1
_LUMA = (
    "16 11 10 16 24 40 51 61 12 12 14 19 26 58 60 55 14 13 16 24 40 57 69 56 14 17 22 29 51 87 80 62 "
    "18 22 37 56 68 109 103 77 24 35 55 64 81 104 113 92 49 64 78 87 103 121 120 101 72 92 95 98 112 100 103 99"
)
_CHROMA = "17 18 24 47 99 99 99 99 18 21 26 66 99 99 99 99 24 26 56 99 99 99 99 99 47 66" + " 99" * 38


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Compress and decompress, with chroma at half the resolution (4:2:0).

    Args:
        images: `(N, 3, H, W)`, or grey `(N, 1, H, W)`, in [0, 1].
        quality: 1 to 100, as in libjpeg and Pillow.

    Raises:
        OptionError: another quality.
        InputError: other channels.
    """
    if not 1 <= quality <= 100:
        raise OptionError(f"quality={quality!r}: give a whole number from 1 to 100")
    if images.dim() != 4 or images.shape[1] not in (1, 3):
        raise InputError(f"images have shape {tuple(images.shape)}; JPEG is of 3 channels, or of 1: give (N, 3, H, W)")
    height, width = images.shape[-2:]
    padded = functional.pad(images * 255, (0, -width % 16, 0, -height % 16), mode="replicate").round()
    if images.shape[1] == 1:
        grey = _compress(padded - 128, _table(_LUMA, quality)) + 128
        return grey[..., :height, :width].round().clamp(0, 255) / 255
    red, green, blue = padded.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    chroma = torch.stack([(blue - luma) / 1.772, (red - luma) / 1.402], 1)
    luma = _compress(luma.unsqueeze(1) - 128, _table(_LUMA, quality)) + 128
    chroma = _compress(functional.avg_pool2d(chroma, 2), _table(_CHROMA, quality))
    chroma = functional.interpolate(chroma, scale_factor=2.0, mode="bilinear", align_corners=False)
    y, (cb, cr) = luma.squeeze(1), chroma.unbind(1)
    made = torch.stack([y + 1.402 * cr, y - 0.344136 * cb - 0.714136 * cr, y + 1.772 * cb], 1)
    return made[..., :height, :width].round().clamp(0, 255) / 255


def _compress(plane: Tensor, table: Tensor) -> Tensor:
    """Quantize the cosine transform of each 8 x 8 block of `(N, C, H, W)`."""
    count, channels, height, width = plane.shape
    cosine, table = _cosine().to(plane), table.to(plane)
    blocks = plane.view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4)
    coefficients = cosine @ blocks @ cosine.T
    blocks = cosine.T @ ((coefficients / table).round() * table) @ cosine
    return blocks.transpose(3, 4).reshape(plane.shape)


def _cosine() -> Tensor:
    """The orthonormal transform of 8 values (T.81, A.3.3)."""
    k, n = torch.meshgrid(torch.arange(8.0), torch.arange(8.0), indexing="ij")
    matrix = torch.cos((2 * n + 1) * k * math.pi / 16) / 2
    matrix[0] /= math.sqrt(2)
    return matrix


def _table(values: str, quality: int) -> Tensor:
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    base = torch.tensor([float(value) for value in values.split()]).view(8, 8)
    return ((base * percent + 50) / 100).floor().clamp(1, 255)
