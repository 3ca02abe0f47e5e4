"""Blur and ringing kernels of Real-ESRGAN (Wang et al. 2021, arXiv:2107.10833, sections 3.1 and 3.3)."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

Shape = Literal["gaussian", "generalized", "plateau"]


def blur_kernel(
    size: int, sigma: tuple[float, float], angle: float = 0.0, shape: Shape = "gaussian", beta: float = 1.0
) -> Tensor:
    """A kernel `(size, size)` that sums to 1, of ``q = x^T S^-1 x``, where S has deviations `sigma` turned by `angle`.

    ``exp(-q / 2)`` (gaussian), ``exp(-q^beta / 2)`` (generalized Gaussian), ``1 / (1 + q^beta)`` (plateau).

    Args:
        size: odd.
        sigma: standard deviations along both axes, in pixels.
        angle: radians.
        beta: form of the last two.
    """
    rows, columns = _grid(size)
    along = math.cos(angle) * columns + math.sin(angle) * rows
    across = -math.sin(angle) * columns + math.cos(angle) * rows
    q = (along / sigma[0]).square() + (across / sigma[1]).square()
    if shape == "gaussian":
        values = torch.exp(-q / 2)
    elif shape == "generalized":
        values = torch.exp(-q.pow(beta) / 2)
    else:
        values = 1 / (1 + q.pow(beta))
    return (values / values.sum()).float()


def sinc_kernel(size: int, cutoff: float) -> Tensor:
    """The ideal circular low-pass filter, cut to `(size, size)`: rings as sharpening and compression do; sums to 1.

    ``cutoff J1(cutoff r) / (2 pi r)`` (equation 6), ``cutoff^2 / (4 pi)`` at its centre.

    Args:
        size: odd.
        cutoff: in radians a pixel; pi lets everything through.
    """
    rows, columns = _grid(size)
    r = torch.hypot(rows, columns)
    values = cutoff * torch.special.bessel_j1(cutoff * r) / (2 * math.pi * r.clamp_min(1e-9))
    values = torch.where(r > 0, values, cutoff**2 / (4 * math.pi))
    return (values / values.sum()).float()


def convolve(images: Tensor, kernel: Tensor) -> Tensor:
    """Each channel of `(N, C, H, W)` with `(size, size)`, at the same size; beyond the border its pixels repeat."""
    reach = kernel.shape[-1] // 2
    padded = functional.pad(images, (reach,) * 4, mode="replicate")
    weight = kernel.to(images).expand(images.shape[1], 1, -1, -1)
    return functional.conv2d(padded, weight, groups=images.shape[1])


def _grid(size: int) -> list[Tensor]:
    line = torch.arange(size, dtype=torch.float64) - size // 2
    return list(torch.meshgrid(line, line, indexing="ij"))
