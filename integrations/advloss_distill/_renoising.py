"""Noise for what a discriminator on a teacher's features sees."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from advloss import OptionError
from advloss_distill._diffusion import Diffusion


@dataclass(frozen=True)
class Renoising:
    """Noise levels ``sigmoid(mean + std normal)`` of the schedule, LADD's distribution (arXiv:2403.12015).

    A draw comes with the condition and holds for real and fake samples, and for both players' turns of an iteration: a
    discriminator stays a function of its inputs, so that a finite difference compares like with like.

    Attributes:
        mean, std: of the logit. Greater means look at coarser structure; LADD's best are 1 and 1.
    """

    mean: float = 1.0
    std: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and 0 <= self.std < math.inf):
            raise OptionError(f"mean={self.mean}, std={self.std}: give a finite mean, and a deviation of at least 0")

    def draw(self, diffusion: Diffusion, shape: tuple[int, ...], like: Tensor) -> dict[str, Tensor]:
        """``{"noise_timesteps": (N,), "noise": (N, ...)}``, N the length of `like`, on its device."""
        level = torch.sigmoid(self.mean + self.std * torch.randn(len(like), device=like.device))
        timesteps = (level * (len(diffusion.alpha) - 1)).round().long()
        return {"noise_timesteps": timesteps, "noise": torch.randn(len(like), *shape, device=like.device)}


@dataclass(frozen=True)
class UniformRenoising:
    """The same with timesteps from all over the schedule alike, as DMD2 draws them (arXiv:2405.14867)."""

    def draw(self, diffusion: Diffusion, shape: tuple[int, ...], like: Tensor) -> dict[str, Tensor]:
        """As `Renoising.draw`."""
        timesteps = torch.randint(len(diffusion.alpha), (len(like),), device=like.device)
        return {"noise_timesteps": timesteps, "noise": torch.randn(len(like), *shape, device=like.device)}
