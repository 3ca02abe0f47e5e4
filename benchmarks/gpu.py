"""On a CUDA GPU alone: larger images in bfloat16, and the share of the chip's matrix rate that a step reaches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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

    def __init__(self, make: Callable[[], Any], device: str) -> None:
        self.loop, self.kind = make(), torch.device(device).type
        self.numbers = self.loop.numbers

    def step(self) -> None:
        self.under_autocast(self.loop.step)

    def under_autocast(self, work: Callable[[], object]) -> None:
        """Do a part of the step."""
        with torch.autocast(self.kind, torch.bfloat16):
            work()


def rows(settings: Settings) -> Iterator[Row | Table]:
    """Nothing where there is no such device."""
    if torch.device(settings.device).type == "cuda":
        yield from figures(settings)


def figures(settings: Settings) -> Iterator[Row | Table]:
    """On any device."""
    network, shares, device = partial(create_discriminator, "patch"), [], settings.device
    for side, batch in ((256, 16), (512, 8)):
        size = (settings.size(side, 32), settings.size(batch, 1), device)
        game = partial(Adversary, "patch", "hinge", channels_last=True)
        first, second = partial(Ours, game, *size), partial(Ours, game, *size, discriminator_first=True)
        best = partial(Best, network, *size)
        plain = partial(Plain, network, *size, discriminator_first=True, fused=None)
        work = f"hinge, PatchGAN, both players, bfloat16, {side} x {side}, batch {size[1]}"
        # after the discriminator's step, bfloat16 shows nothing: Adam's first one has the sign of each rounding error
        for ours, against, other, agreement in (
            (first, "best loop by hand", best, 0.1),
            (second, "plain loop", plain, None),
        ):
            one, two = partial(BFloat16, ours, device), partial(BFloat16, other, device)
            yield compare(work, one, against, two, settings, agreement=agreement)
        shares.append(_share(size[0], BFloat16(first, device), settings))
    columns = ("side", "TFLOP a step", "ms a step", "TFLOP/s", "measured matrix rate, TFLOP/s", "share")
    yield Table(title="Share of the matrix rate", columns=columns, rows=shares)


def _share(side: int, loop: BFloat16, settings: Settings) -> list[float]:
    """Of a discriminator's step."""
    game = loop.loop
    fake = game.generator(game.latent).detach()
    step = partial(loop.under_autocast, partial(game.update_discriminator, fake))
    with FlopCounterMode(display=False) as counter:
        step()
    flops, taken = counter.get_total_flops(), _shortest(step, settings)
    rate = _matrix_rate(settings)
    return [side, flops / 1e12, 1e3 * taken, flops / taken / 1e12, rate / 1e12, flops / taken / rate]


def _matrix_rate(settings: Settings) -> float:
    """Operations a second of a large product in bfloat16."""
    side = settings.size(8192, 256)
    one, other = (torch.randn(side, side, device=settings.device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / _shortest(lambda: one @ other, settings)


def _shortest(work: Callable[[], object], settings: Settings) -> float:
    """Seconds, the first times left out."""
    return min(seconds(work, settings.device) for _ in range(settings.size(20, 2)))
