"""ADD's student inputs: noised real samples (arXiv:2311.17042, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor

from advloss import OptionError
from advloss_distill._diffusion import Diffusion
from advloss_distill._simulation import Conditions, Data


@final
class NoisedData:
    """Real samples noised to the student's timesteps, equally many at each: what it would see if it made no errors.

    The alternative to `BackwardSimulation`, with which a student of several steps never meets its own output.

    Args:
        diffusion: noise levels.
        timesteps: of the student, for example ``(999, 749, 499, 249)``.
        count: samples of a batch.
        data: where real samples come from.
    """

    def __init__(self, diffusion: Diffusion, timesteps: Sequence[float], count: int, data: Data) -> None:
        if count < len(timesteps) or not timesteps:
            raise OptionError(f"{count} samples for timesteps {tuple(timesteps)}: give at least one for each")
        if not 0 <= min(timesteps) <= max(timesteps) < len(diffusion.alpha):
            raise OptionError(f"timesteps {tuple(timesteps)}: give some from 0 to {len(diffusion.alpha) - 1}")
        self.diffusion, self.data = diffusion, data
        self.fresh, self.num_steps = count, len(timesteps)
        self.steps = torch.arange(count) % len(timesteps)
        self.timesteps = torch.tensor(timesteps)[self.steps]

    def inputs(self, noise: Tensor, condition: Conditions) -> tuple[Tensor, Conditions]:
        """Real samples of `condition`, noised with `noise` `(N, ...)`."""
        return self.diffusion.add_noise(self.data.real(condition), noise, self.timesteps), condition

    def advance(self, x0: Tensor, condition: Conditions) -> None:
        """Nothing: the next inputs do not depend on the student."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing to keep."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to take up."""
