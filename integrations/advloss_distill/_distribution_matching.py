"""Distribution matching distillation: the student is moved from its own score to the teacher's (DMD, DMD2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import final

import torch
from torch import Tensor, nn

from advloss import OptionError
from advloss_distill._denoiser import Denoiser
from advloss_distill._guidance import Guidance
from advloss_distill._simulation import Conditions
from advloss_distill._term import Made


@final
class DistributionMatching:
    """``1/2 E mean ||x_0 - sg(x_0 - g)||^2``, whose gradient is DMD's (arXiv:2311.18828, eq. 7-8).

    ``g = (x_fake - x_real) / mean |x_0 - x_real|``, the mean over a sample's elements: x_real is the teacher's answer for the
    student's noised sample, guided, and x_fake that of the network that follows the student. t is uniform between 0.02 and
    0.98 of the schedule. No gradient flows through either network. Both run in the precision of their weights, also under autocast:
    their answers differ by little, and by less than bfloat16 rounds at first.

    Args:
        denoiser: how both are called.
        teacher: the real score.
        fake: the fake score, such as `FakeScore.network`.
        told: from the condition and the student's steps `(N,)` to what the fake score is told, such as `FakeScore.told`; None is the
            condition alone.
        guidance: of the teacher; DMD2 takes 1.75 for Stable Diffusion 1.5, and 8 for SDXL. None is none.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        teacher: nn.Module,
        fake: nn.Module,
        *,
        told: Callable[[Conditions, Tensor], Conditions] | None = None,
        guidance: Guidance | None = None,
    ) -> None:
        if fake is teacher:
            raise OptionError("the fake score network is the teacher itself: give a copy, which is trained beside it")
        self.denoiser, self.teacher, self.fake, self.told, self.guidance = denoiser, teacher, fake, told, guidance

    def __call__(self, made: Made) -> Tensor:
        levels = len(self.denoiser.diffusion.alpha)
        timesteps = torch.randint(int(0.02 * levels), int(0.98 * levels) + 1, (len(made.x0),), device=made.x0.device)
        return self.at(made, timesteps, torch.randn_like(made.x0))

    def at(self, made: Made, timesteps: Tensor, noise: Tensor) -> Tensor:
        """The term for one draw of timesteps `(N,)` and noise `(N, ...)`."""
        x0 = made.x0.detach()
        with torch.no_grad(), torch.autocast(x0.device.type, enabled=False):
            noisy, condition = self.denoiser.diffusion.add_noise(x0, noise, timesteps), made.condition
            told = condition if self.told is None else self.told(condition, made.steps)
            fake = self.denoiser.x0(self.fake, noisy, timesteps, told)
            if self.guidance is None:
                real = self.denoiser.x0(self.teacher, noisy, timesteps, condition)
            else:
                real = self.guidance.x0(self.denoiser, self.teacher, noisy, timesteps, condition)
            size = (x0 - real).abs().flatten(1).mean(1).view(-1, *[1] * (x0.ndim - 1))
            gradient = ((fake - real) / size).nan_to_num()  # where the teacher agrees to the last bit
        return 0.5 * (made.x0 - (x0 - gradient)).square().mean()
