"""Data whose modes are known, so that a missing one can be counted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class GaussianMixture:
    """Equally likely Gaussians of one standard deviation.

    Attributes:
        centers: the modes `(modes, features)`.
        std: standard deviation of each mode along each axis, in units of the samples.
    """

    centers: Tensor
    std: float

    def sample(self, count: int) -> Tensor:
        """`count` samples `(count, features)`, drawn from torch's global generator."""
        centers = self.centers[torch.randint(len(self.centers), (count,))]
        return centers + self.std * torch.randn_like(centers)

    def batches(self, size: int) -> Iterator[Tensor]:
        """Fresh batches `(size, features)` without end."""
        while True:
            yield self.sample(size)


def ring(modes: int = 8, radius: float = 2.0, std: float = 0.02) -> GaussianMixture:
    """`modes` Gaussians on a circle; with these defaults the ring of VEEGAN (arXiv:1705.07761, section 4.1)
    and PacGAN (arXiv:1712.04086, section 4.1).
    """
    angles = torch.arange(modes) * (2 * math.pi / modes)
    return GaussianMixture(radius * torch.stack([angles.cos(), angles.sin()], dim=1), std)


def grid(side: int = 5, spacing: float = 2.0, std: float = 0.05) -> GaussianMixture:
    """`side` times `side` Gaussians around the origin; with these defaults the grid of the same two papers."""
    places = spacing * (torch.arange(side) - (side - 1) / 2)
    return GaussianMixture(torch.cartesian_prod(places, places), std)


def two_gaussians(distance: float = 4.0, std: float = 0.5) -> GaussianMixture:
    """Two Gaussians on a line, `distance` apart: the smallest data set that a generator can collapse on."""
    return GaussianMixture(torch.tensor([[-distance / 2], [distance / 2]]), std)
