"""What options of an adversary are worth: each over the defaults, the whole game with a PatchGAN and the hinge loss."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from advloss import Adversary
from benchmarks._harness import Row, Settings, compare
from benchmarks._players import BETAS, Ours


class BFloat16(Ours):
    """Under the script's own autocast."""

    def step(self) -> None:
        with torch.autocast(self.real.device.type, torch.bfloat16):
            super().step()


def rows(settings: Settings) -> Iterator[Row]:
    """The default optimizer is fused."""
    side, batch = settings.size(64, 16), settings.size(4, 1)
    size = (side, batch, settings.device)
    options = {"width": settings.size(64, 8), "depth": settings.size(3, 1)}
    game = partial(Adversary, ("patch", options), "hinge")
    default = partial(Ours, game, *size)
    adam: Any = partial(torch.optim.Adam, lr=2e-4, betas=BETAS)
    tried: dict[str, tuple[partial[Ours], float]] = {
        "compile=True": (partial(Ours, partial(game, compile=True), *size), 1e-3),
        "channels_last=True": (partial(Ours, partial(game, channels_last=True), *size), 1e-3),
        "Adam foreach": (partial(Ours, partial(game, optimizer=partial(adam, foreach=True)), *size), 1e-5),
        "Adam neither fused nor foreach": (
            partial(Ours, partial(game, optimizer=partial(adam, foreach=False)), *size),
            1e-5,
        ),
        "autocast bfloat16": (partial(BFloat16, game, *size), 0.5),
    }
    for name, (ours, agreement) in tried.items():
        if settings.short and name == "compile=True":  # a minute of its own; tests/benchmarks compiles without code
            continue
        work = f"{name}, PatchGAN, both players, {side} x {side}, batch {batch}"
        yield compare(work, ours, "defaults", default, settings, agreement=agreement)
