"""On a CUDA GPU alone: larger images in bfloat16, and the share of the chip's matrix rate that a step reaches."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from advloss import Adversary, create_discriminator
from benchmarks._harness import Row, Settings, Table, compare, seconds
from benchmarks._players import Ours
from benchmarks.hinge import Best, Plain


class BFloat16:
    """A loop under autocast."""

    def __init__(self, make: Any) -> None:
        self.loop = make()
        self.numbers = self.loop.numbers

    def step(self) -> None:
        with torch.autocast("cuda", torch.bfloat16):
            self.loop.step()


def rows(settings: Settings) -> Iterator[Row | Table]:
    """Nothing where there is no such device."""
    if torch.device(settings.device).type != "cuda":
        return
    network, shares = partial(create_discriminator, "patch"), []
    for side, batch in ((256, 16), (512, 8)):
        size = (side, settings.size(batch, 1), settings.device)
        game = partial(Adversary, "patch", "hinge", channels_last=True)
        first, second = partial(Ours, game, *size), partial(Ours, game, *size, discriminator_first=True)
        best = partial(Best, network, *size)
        plain = partial(Plain, network, *size, discriminator_first=True, fused=None)
        work = f"hinge, PatchGAN, both players, bfloat16, {side} x {side}, batch {size[1]}"
        for ours, against, other in ((first, "best loop by hand", best), (second, "plain loop", plain)):
            yield compare(work, partial(BFloat16, ours), against, partial(BFloat16, other), settings, agreement=0.1)
        shares.append(_share(side, BFloat16(first)))
    columns = ("side", "TFLOP a step", "ms a step", "TFLOP/s", "measured matrix rate, TFLOP/s", "share")
    yield Table(title="Share of the matrix rate", columns=columns, rows=shares)


def _share(side: int, loop: BFloat16) -> list[float]:
    """Of a discriminator's step."""
    game = loop.loop
    fake = game.generator(game.latent).detach()

    def step() -> None:
        with torch.autocast("cuda", torch.bfloat16):
            game.update_discriminator(fake)

    with FlopCounterMode(display=False) as counter:
        step()
    flops, taken = counter.get_total_flops(), min(seconds(step, "cuda") for _ in range(20))
    rate = _matrix_rate()
    return [side, flops / 1e12, 1e3 * taken, flops / taken / 1e12, rate / 1e12, flops / taken / rate]


def _matrix_rate(side: int = 8192) -> float:
    """Operations a second of a large product in bfloat16."""
    one, other = (torch.randn(side, side, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / min(seconds(lambda: one @ other, "cuda") for _ in range(20))
