"""The teacher's own trajectories, from noise to samples: where the student starts from."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from advloss import OptionError, load_state, save_state
from advloss_distill._denoiser import Denoiser
from advloss_distill._simulation import Conditions


@dataclass(frozen=True)
class Trajectories:
    """What the teacher made of noise, and what it came through.

    Attributes:
        noisy: by timestep, the samples on their way `(N, ...)`.
        samples: where they ended `(N, ...)`.
        condition: what they were made for.
    """

    noisy: dict[int, Tensor]
    samples: Tensor
    condition: Conditions

    def __len__(self) -> int:
        return len(self.samples)

    def save(self, path: Path) -> None:
        """Write a safetensors file."""
        save_state(asdict(self), path)

    @classmethod
    def load(cls, path: Path) -> Trajectories:
        """Read what `save` wrote; tensors are on the CPU.

        Raises:
            advloss.StateError: there is no such file, or it is damaged.
        """
        return cls(**load_state(path))

    def to(self, device: torch.device | str) -> Trajectories:
        """The same on `device`."""
        return Trajectories(
            {t: noisy.to(device) for t, noisy in self.noisy.items()},
            self.samples.to(device),
            {name: value.to(device) for name, value in self.condition.items()},
        )


@torch.no_grad()
def roll_out(
    teacher: nn.Module,
    denoiser: Denoiser,
    scheduler: Any,
    noise: Tensor,
    condition: Conditions,
    timesteps: Collection[int],
    steps: int,
    batch_size: int = 500,
) -> Trajectories:
    """Sample from the teacher with a deterministic diffusers scheduler, and keep what passes at `timesteps`.

    Args:
        noise: standard normal `(N, ...)`.
        condition: of the N samples.
        timesteps: of the student; the scheduler has to visit each of them in so many `steps`.

    Raises:
        OptionError: it does not.
    """
    scheduler.set_timesteps(steps, device=noise.device)
    missed = sorted(set(timesteps) - {int(t) for t in scheduler.timesteps})
    if missed:
        raise OptionError(f"{steps} steps do not visit the timesteps {missed}; give another number of steps")
    parts = []
    for batch in torch.arange(len(noise), device=noise.device).split(batch_size):
        samples, kept = noise[batch], {}
        here = {name: value[batch] for name, value in condition.items()}
        for timestep in scheduler.timesteps:
            if int(timestep) in timesteps:
                kept[int(timestep)] = samples
            output = denoiser.output(teacher, samples, timestep.expand(len(batch)), here)
            samples = scheduler.step(output, timestep, samples).prev_sample
        parts.append((kept, samples))
    noisy = {t: torch.cat([kept[t] for kept, _ in parts]) for t in sorted(timesteps)}
    return Trajectories(noisy, torch.cat([samples for _, samples in parts]), condition)


def follow(
    student: nn.Module,
    denoiser: Denoiser,
    trajectories: Trajectories,
    iterations: int,
    batch_size: int = 128,
    lr: float = 1e-3,
    on_progress: Callable[[int, Tensor], None] = lambda iteration, loss: None,
) -> None:
    """Teach the student to jump from anywhere on a trajectory to its end (Luhman & Luhman, arXiv:2101.02388).

    A teacher's answer in one step is a mean: a student that starts from it makes samples that lie too close to each
    other and to the training data, and an adversary alone takes long to spread them. A trajectory's end is a sample.
    `on_progress` is called with the iteration and its mean squared error.
    """
    optimizer = torch.optim.Adam(student.parameters(), lr=lr, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 0.55 + 0.45 * math.cos(math.pi * i / iterations))
    device = trajectories.samples.device
    kept = torch.tensor(list(trajectories.noisy), device=device)
    starts = torch.stack(list(trajectories.noisy.values()))
    for iteration in range(1, iterations + 1):
        chosen = torch.randint(len(trajectories), (batch_size,), device=device)
        start = torch.arange(batch_size, device=device) % len(kept)
        noisy, timesteps = starts[start, chosen], kept[start]
        condition = {name: value[chosen] for name, value in trajectories.condition.items()}
        output = denoiser.output(student, noisy, timesteps, condition)
        loss = mse_loss(denoiser.diffusion.to_x0(output, noisy, timesteps), trajectories.samples[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        on_progress(iteration, loss.detach())
