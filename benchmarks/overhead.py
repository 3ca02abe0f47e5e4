"""What reports, measurements of the samples, the guard against NaN and infinity and the health monitor cost: both players
with them, over without; a pair is of whole periods."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import advloss
from advloss import Adversary, Report, _adversary, _update
from advloss._gate import Gate
from advloss._health import KEPT
from advloss._passing import PassingGradient
from advloss._players import Players
from advloss._signals import EVERY
from advloss._update import Update
from benchmarks._harness import Row, Settings, compare
from benchmarks._players import Ours


class Period(Ours):
    """So many steps that the samples are measured in one of them."""

    def step(self) -> None:
        for _ in range(EVERY):
            super().step()


class Watched(Period):
    """With the health monitor, whose memory is full; it looks for causes once a period, twelve times as often as by itself."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.monitor = advloss.HealthMonitor(self.adversary, every=EVERY, warn=lambda finding: None)
        report = self.adversary.discriminator_step(self.real, -self.real)
        for _ in range(KEPT):
            self.monitor(report)  # one with signals is always kept

    def update_discriminator(self, fake: Tensor) -> None:
        self.monitor(self.adversary.discriminator_step(self.real, fake))


class Unguarded(Period):
    """The same with none: nothing is looked at, measured or reported."""

    def step(self) -> None:
        good = torch.ones((), dtype=torch.bool, device=self.real.device)
        with ExitStack() as stack:
            for owner, name, stub in (
                (Update, "_all_finite", lambda *args: good),
                (Gate, "check_finite", lambda *args, **samples: None),
                (PassingGradient, "watch", lambda *args: None),
                (Players, "_measure", lambda *args: None),
                (_update, "get_total_norm", lambda *args: None),
                (_adversary, "report_of", _no_report),
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
        with_them, without = (partial(kind, adversary, side, batch, settings.device) for kind in (Period, Unguarded))
        work = f"both players with reports and guard, PatchGAN, norm={norm}, {side} x {side}, batch {batch}"
        yield compare(work, with_them, "without", without, settings, target=1.01)
        watched = partial(Watched, adversary, side, batch, settings.device)
        yield compare(f"health monitor, {work}", watched, "without any", without, settings, target=1.01, agreement=None)
