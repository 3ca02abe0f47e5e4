"""What reports, the guard against NaN and infinity, and the health monitor cost: both players with them, over without."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import advloss
from advloss import Adversary, Report
from advloss import _adversary as core
from advloss._gate import Gate
from advloss._update import Update
from benchmarks._harness import Row, Settings, compare
from benchmarks._players import Ours


class Watched(Ours):
    """With the health monitor, which gets every report and looks at what it has once a pair."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.monitor = advloss.HealthMonitor(self.adversary, every=1)

    def update_discriminator(self, fake: Tensor) -> None:
        self.monitor(self.adversary.discriminator_step(self.real, fake))


class Unguarded(Ours):
    """The same with neither: nothing is looked at, nothing is reported."""

    def step(self) -> None:
        good = torch.ones((), dtype=torch.bool, device=self.real.device)
        with ExitStack() as stack:
            for owner, name, stub in (
                (Update, "_all_finite", lambda *args: good),
                (Gate, "check_finite", lambda *args, **samples: None),
                (core, "report_of", _no_report),
            ):
                stack.enter_context(mock.patch.object(owner, name, stub))
            super().step()


def _no_report(turn: Any, loss: Any, step: int, *rest: Any, **options: Any) -> Report:
    return Report(step=step, loss=turn.loss.detach())


def rows(settings: Settings) -> Iterator[Row]:
    """With the buffers of batch norm and of spectral norm."""
    side, batch = settings.size(64, 16), settings.size(4, 2)
    for norm in ("batch", "spectral"):
        options = {"width": settings.size(64, 8), "norm": norm, "depth": settings.size(3, 1)}
        adversary = partial(Adversary, ("patch", options), "hinge")
        with_them, without = (partial(kind, adversary, side, batch, settings.device) for kind in (Ours, Unguarded))
        work = f"both players with reports and guard, PatchGAN, norm={norm}, {side} x {side}, batch {batch}"
        yield compare(work, with_them, "without", without, settings, target=1.01)
        if hasattr(advloss, "HealthMonitor"):
            watched = partial(Watched, adversary, side, batch, settings.device)
            work = f"health monitor, {work}"
            yield compare(work, watched, "without any", without, settings, target=1.01, agreement=None)
