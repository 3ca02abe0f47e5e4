"""The teacher's term: score distillation in the space of samples."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from advloss_distill._denoiser import Denoiser
from advloss_distill._simulation import Conditions


def score_distillation(
    denoiser: Denoiser, teacher: nn.Module, x0: Tensor, condition: Conditions, timesteps: Tensor | None = None
) -> Tensor:
    """``E alpha_t mean ||x_0 - teacher(noised(x_0), t)||^2``: ADD's term with exponential weights (arXiv:2311.17042, eq. 3-4).

    The student's sample is noised to a timestep of its own, uniform over the schedule, and the teacher's one-step answer
    is its target; no gradient flows through the teacher.

    Args:
        x0: what the student made `(N, ...)`, with its graph.
        timesteps: `(N,)`; drawn when None.
    """
    diffusion = denoiser.diffusion
    if timesteps is None:
        timesteps = torch.randint(len(diffusion.alpha), (len(x0),), device=x0.device)
    with torch.no_grad():
        noisy = diffusion.add_noise(x0, torch.randn_like(x0), timesteps)
        target = denoiser.x0(teacher, noisy, timesteps, condition)
    return (diffusion.at(diffusion.alpha, timesteps, x0) * (x0 - target).square()).mean()
