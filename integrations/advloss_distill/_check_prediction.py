"""Does the network predict what its scheduler says? Asked of real latents, before training begins."""

from __future__ import annotations

import torch
from torch import nn

from advloss import OptionError
from advloss_distill._family import Family
from advloss_distill._simulation import Data

NOISE = 0.85  # noise level of the question: much is hidden, so that an answer read wrongly is worse than none
COUNT = 8


@torch.no_grad()
def check_prediction(family: Family, teacher: nn.Module, data: Data) -> None:
    """Compare the teacher's ``x_0`` of noised latents with them, read as its scheduler says and otherwise.

    A Stable Diffusion 2.1 with the scheduler of 2.1-base looks well configured, and gives answers that are none. Where
    the answers are right only by another reading (half the error, and less than half of what the mean would have), that
    reading is the network's. Torch's global random numbers are left as they are.

    Raises:
        OptionError: the scheduler's prediction type is not the network's.
    """
    diffusion = family.diffusion
    timestep = int((diffusion.sigma - NOISE).abs().argmin())
    with torch.random.fork_rng():
        torch.manual_seed(0)
        condition = data.conditions(COUNT)
        latents = data.real(condition)
        timesteps = torch.full((COUNT,), timestep, device=latents.device)
        noisy = diffusion.add_noise(latents, torch.randn_like(latents), timesteps)
        output = family.answer(teacher, noisy, timesteps, condition)
    errors = {
        name: float((diffusion.read_as(name, output, noisy, timesteps) - latents).square().mean())
        for name in family.predictions
    }
    best = min(errors, key=errors.__getitem__)
    declared, mean = errors[diffusion.prediction], float(latents.square().mean())
    if 2 * errors[best] < min(declared, mean):
        raise OptionError(
            f"the scheduler of this {family.name} says that its network predicts {diffusion.prediction!r}, but read as "
            f"{best!r} its answers to noised data are right (squared error {errors[best]:.3g} in place of {declared:.3g}): load "
            "the scheduler that the teacher came with, or set its prediction_type"
        )
