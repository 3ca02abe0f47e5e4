"""Consistency distillation in latent space (LCM, arXiv:2310.04378)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from advloss import OptionError
from advloss_distill._denoiser import Denoiser
from advloss_distill._guidance import Guidance
from advloss_distill._term import Made

SIGMA_DATA, TIMESTEP_SCALING = 0.5, 10.0  # as diffusers' LCMScheduler has them, which samples from the student


@final
class Consistency:
    """``E d(f(x_t, t), f_average(x_s, s))``: two points of one of the teacher's trajectories have one end.

    ``x_s`` is the teacher's DDIM step, guided, from the student's input ``x_t`` to ``s = t - skip`` (at least 0); for a flow it is
    Euler's. ``f(x, t) = c_skip(t) x + c_out(t) x_0(x, t)`` is the identity at 0, and d is pseudo-Huber,
    ``sqrt((a - b)^2 + delta^2) - delta``, averaged. The target is the student's average (the EMA of `Distillation`).

    Take the student's inputs from `AnyTimestep`: consistency reaches from 0 upwards through all timesteps.

    Args:
        denoiser, teacher: how the teacher is called.
        guidance: of the teacher; None is none. A scale in the condition goes before.
        skip: timesteps of one solver's step; 20 in the paper.
        delta: of the pseudo-Huber distance; 0.001 in diffusers' script.
    """

    needs_average = True

    def __init__(
        self,
        denoiser: Denoiser,
        teacher: nn.Module,
        *,
        guidance: Guidance | None = None,
        skip: int = 20,
        delta: float = 1e-3,
    ) -> None:
        if not 1 <= skip < len(denoiser.diffusion.alpha):
            raise OptionError(
                f"skip={skip}; a solver's step goes over 1 to {len(denoiser.diffusion.alpha) - 1} timesteps"
            )
        if not delta > 0:
            raise OptionError(f"delta={delta}; give a positive number")
        self.denoiser, self.teacher, self.guidance = denoiser, teacher, guidance
        self.skip, self.delta = skip, delta

    def __call__(self, made: Made) -> Tensor:
        earlier = (made.timesteps - self.skip).clamp(min=0)
        with torch.no_grad():
            on_path = self._solve(made, earlier)
            x0 = self.denoiser.x0(made.average, on_path, earlier, made.condition)
            target = at_the_end(x0, on_path, earlier)
        found = at_the_end(made.x0, made.noisy, made.timesteps)
        return ((found - target).square() + self.delta**2).sqrt().sub(self.delta).mean()

    def _solve(self, made: Made, earlier: Tensor) -> Tensor:
        """The teacher's DDIM step to `earlier`: its answer, with the noise that it stands for."""
        diffusion, told = self.denoiser.diffusion, (made.noisy, made.timesteps, made.condition)
        if self.guidance is None:
            x0 = self.denoiser.x0(self.teacher, *told)
        else:
            x0 = self.guidance.x0(self.denoiser, self.teacher, *told)
        alpha, sigma = (diffusion.at(levels, made.timesteps, x0) for levels in (diffusion.alpha, diffusion.sigma))
        return diffusion.add_noise(x0, (made.noisy - alpha * x0) / sigma, earlier)


def at_the_end(x0: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
    """``c_skip x + c_out x_0``, with LCM's ``c_skip = s^2 / ((10 t)^2 + s^2)``, ``c_out = 10 t / sqrt((10 t)^2 + s^2)``, s = 0.5."""
    scaled = (timesteps.to(x0.dtype) * TIMESTEP_SCALING).view(-1, *[1] * (x0.ndim - 1))
    total = scaled.square() + SIGMA_DATA**2
    return SIGMA_DATA**2 / total * noisy + scaled / total.sqrt() * x0
