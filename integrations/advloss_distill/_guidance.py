"""Classifier-free guidance of the teacher (arXiv:2207.12598)."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor, nn

from advloss import OptionError
from advloss_distill._denoiser import Denoiser
from advloss_distill._simulation import Conditions


def check_scale(scale: float, name: str = "guidance") -> None:
    """Raise OptionError unless a teacher can be guided with this scale."""
    if not 0 <= scale < math.inf:
        raise OptionError(f"{name}={scale}: give a finite scale that is not negative; 1 is no guidance")


@dataclass(frozen=True)
class Guidance:
    """``x_0 = x_0(nothing) + scale (x_0(condition) - x_0(nothing))``: two evaluations of the teacher.

    Attributes:
        scale: 1 is no guidance. ``condition["guidance"]`` `(N,)` takes its place where there is one.
        nothing: what the teacher is told where nothing is asked for, of one sample (`Family.nothing`).

    Raises:
        OptionError: the scale is negative, or no number.
    """

    scale: float
    nothing: Conditions

    def __post_init__(self) -> None:
        check_scale(self.scale)

    def x0(
        self, denoiser: Denoiser, teacher: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Conditions
    ) -> Tensor:
        """The guided ``x_0`` `(N, ...)`."""
        told = denoiser.x0(teacher, noisy, timesteps, condition)
        untold = denoiser.x0(teacher, noisy, timesteps, repeated(self.nothing, noisy))
        scale: Tensor | float = self.scale
        if "guidance" in condition:
            scale = condition["guidance"].to(noisy.dtype).view(-1, *[1] * (noisy.ndim - 1))
        return untold + scale * (told - untold)


def repeated(one: Conditions, like: Tensor) -> Conditions:
    """The condition of one sample for as many as `like` has, on its device."""
    return {name: value.to(like.device).expand(len(like), *value.shape[1:]) for name, value in one.items()}
