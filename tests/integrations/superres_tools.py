"""Trainings in miniature, with everything on that has a state."""

from __future__ import annotations

import functools
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from advloss import Adversary
from advloss_superres import Objective, Phase, PhasedTraining, ResidualNetwork

PATCH = ("patch", {"width": 4, "depth": 1, "norm": "none"})
ADAM = functools.partial(torch.optim.Adam, lr=1e-3, fused=True)


def decay(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)


def pairs(count: int = 6, side: int = 16) -> TensorDataset:
    high = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return TensorDataset(torch.nn.functional.avg_pool2d(high, 2), high)


def loader(batch: int = 2) -> DataLoader:
    return DataLoader(pairs(), batch, shuffle=True)


def adversary(**options: Any) -> Adversary:
    given = {"loss": "relativistic", "regularizers": {"lecam": {"weight": 0.1}, "r1": {"weight": 0.1, "every": 2}}}
    return Adversary(PATCH, **{**given, "scheduler": decay, "weight": 0.1, "seed": 0, **options})


def phase(name: str, steps: int = 3, **options: Any) -> Phase:
    """Without an adversary where its name is psnr."""
    judge = None if name == "psnr" else adversary()
    given = {"objective": Objective(judge), "batches": loader(), "optimizer": ADAM, "scheduler": decay}
    return Phase(name=name, steps=steps, **{**given, **options})


def network() -> ResidualNetwork:
    torch.manual_seed(0)
    return ResidualNetwork(2, width=4, depth=1)


def training(accelerator: Accelerator, *phases: Phase, **options: Any) -> PhasedTraining:
    """Both phases, unless others are given."""
    model = network()
    chosen = phases or (phase("psnr"), phase("adversarial", 4))
    return PhasedTraining(model, chosen, accelerator=accelerator, **{"ema_decay": 0.5, **options})


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def alike(one: Any, other: Any) -> bool:
    """Whether two states are equal bit by bit."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other)


def both_phases(rank: int, world: int) -> tuple[Phase, Phase]:
    """Two phases on this process's share of one batch, with an adversary whose terms are means over samples."""
    share = tuple(tensor[rank::world] for tensor in pairs(4).tensors)
    judge = adversary(regularizers={"r1": {"weight": 0.1}})
    psnr = phase("psnr", 2, batches=[share])
    return psnr, phase("adversarial", 3, objective=Objective(judge), batches=[share])
