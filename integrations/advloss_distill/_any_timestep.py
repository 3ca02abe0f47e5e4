"""Consistency distillation's inputs: samples noised to any timestep (arXiv:2310.04378)."""

from __future__ import annotations

import math
from typing import Any, final

import torch
from torch import Tensor

from advloss import OptionError, StateError
from advloss_distill._diffusion import Diffusion
from advloss_distill._simulation import Conditions, Data, together

LEVELS = 4  # parts of the schedule that a discriminator is told apart (condition kind "time")


@final
class AnyTimestep:
    """Real samples noised to timesteps from all over the schedule, drawn anew for every batch.

    Args:
        diffusion: noise levels.
        count: samples of a batch.
        data: where real samples come from.
        own: half of a batch is what the student made of the other half in the iteration before, noised to an earlier
            timestep than it was made at: the counterpart of `BackwardSimulation`.
        guidance: draw ``condition["guidance"]`` evenly between these two (LCM's w + 1), for a student that is told it
            (`Family.guided_student`).

    Attributes:
        timesteps: `(N,)`, of the last batch.
        steps: `(N,)`, the fourth of the schedule that each lies in, 0 with the least noise.
    """

    num_steps = LEVELS

    def __init__(
        self,
        diffusion: Diffusion,
        count: int,
        data: Data,
        *,
        own: bool = False,
        guidance: tuple[float, float] | None = None,
    ) -> None:
        if count < 1 + own:
            raise OptionError(f"{count} samples in a batch: give at least {1 + own}")
        if guidance is not None and not 1 <= guidance[0] <= guidance[1] < math.inf:
            raise OptionError(f"guidance={guidance}: give the least and the greatest scale, finite ones from 1 on")
        self.diffusion, self.data, self.guidance = diffusion, data, guidance
        self.count, self.own = count, own
        self.timesteps = torch.zeros(count, dtype=torch.long)
        self._left: tuple[Tensor, Tensor, Conditions] | None = None

    @property
    def fresh(self) -> int:
        """So many conditions are new in the next batch."""
        return self.count if self._left is None else self.count - self.count // 2

    @property
    def steps(self) -> Tensor:
        return (self.timesteps * LEVELS // len(self.diffusion.alpha)).long()

    def inputs(self, noise: Tensor, condition: Conditions) -> tuple[Tensor, Conditions]:
        """A batch `(N, ...)`, noised with `noise` `(fresh, ...)`, and what it is made for."""
        x0 = self.data.real(condition)
        timesteps = torch.randint(1, len(self.diffusion.alpha), (len(x0),), device=x0.device)
        if self.guidance is not None:
            low, high = self.guidance
            condition = {**condition, "guidance": low + (high - low) * torch.rand(len(x0), device=x0.device)}
        if self._left is not None:
            own, made_at, told = self._left
            own, made_at = own.to(x0.device), made_at.to(x0.device)
            earlier = 1 + (torch.rand(len(own), device=x0.device) * (made_at - 1)).long()
            x0, timesteps = together(x0, own, "samples"), torch.cat([timesteps, earlier])
            condition = {name: together(value, told.get(name), name) for name, value in condition.items()}
            noise = torch.cat([noise, torch.randn_like(own)])
        self.timesteps = timesteps
        return self.diffusion.add_noise(x0, noise, timesteps), condition

    @torch.no_grad()
    def advance(self, x0: Tensor, condition: Conditions) -> None:
        """Keep what the student made of real samples, where its own are asked for."""
        if self.own:
            half = self.count // 2
            self._left = x0.detach()[:half], self.timesteps[:half], {n: v[:half] for n, v in condition.items()}

    def state_dict(self) -> dict[str, Any]:
        """What the next batch takes from the last one."""
        if self._left is None:
            return {}
        x0, timesteps, condition = self._left
        return {"x0": x0, "timesteps": timesteps, "condition": condition}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up what `state_dict` returned.

        Raises:
            StateError: it is of a batch of another size. Nothing has changed.
        """
        if state and (not self.own or len(state["x0"]) != self.count // 2):
            raise StateError(
                f"the state has {len(state['x0'])} of the student's own samples, this run takes {self.count // 2 * self.own}; "
                "build it as it was saved"
            )
        self._left = (state["x0"], state["timesteps"], state["condition"]) if state else None
