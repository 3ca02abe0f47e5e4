"""Time and memory of a discriminator's step against what it may grow with."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from advloss import Adversary
from benchmarks import _ranks
from benchmarks._harness import Settings, Table, peak_bytes, seconds
from benchmarks._players import DiscriminatorAlone

COLUMNS = ("ms a step", "MB at the peak", "work over the first", "time over the first", "memory over the first")


def rows(settings: Settings) -> Iterator[Table]:
    """One table for each."""
    side, batch = settings.size(64, 32), settings.size(4, 1)
    patch: dict[str, Any] = {"width": settings.size(32, 4), "depth": 2}
    game = ("patch", patch)
    batches = {n * batch: _step(game, side, n * batch, settings) for n in (1, 2, 4, 8)}
    yield _grown("Batch", "images", batches, [1, 2, 4, 8], settings)
    sides = {n * side: _step(game, n * side, batch, settings) for n in (1, 2, 4)}
    yield _grown("Resolution", "side", sides, [1, 4, 16], settings)
    pyramids: dict[int, Any] = {n: {"discriminator": ("patch", {**patch, "depth": 1}), "scales": n} for n in (1, 2, 3)}
    scales = {n: _step(("multiscale", options), side, batch, settings) for n, options in pyramids.items()}
    yield _grown("Scales of an image pyramid (multiscale)", "scales", scales, [1, 1.25, 1.3125], settings)
    vit: dict[str, Any] = {"backbone": "test_vit", "pretrained": False, "resolution": settings.size(64, 32)}
    tokens = {n: {**vit, "blocks": tuple(range(6 - n, 5))} for n in (2, 3, 5)}  # all through the last block
    heads = {n: _step(("dino", options), side, batch, settings) for n, options in tokens.items()}
    yield _grown("Heads on one backbone (dino)", "heads", heads, ["-"] * 3, settings)
    yield _over_ranks(side, batch, settings)


def _step(discriminator: Any, side: int, batch: int, settings: Settings) -> partial[DiscriminatorAlone]:
    return partial(DiscriminatorAlone, partial(Adversary, discriminator, "hinge"), side, batch, settings.device)


def _grown(title: str, unit: str, steps: Mapping[int, Any], work: list[Any], settings: Settings) -> Table:
    figures = []
    for make in steps.values():
        loop = make()
        times = [seconds(loop.step, settings.device) for _ in range(settings.size(9, 2))][1:]
        figures.append((1e3 * statistics.median(times), peak_bytes(make, settings.device) / 1e6))
    return _table(title, unit, list(steps), figures, work)


def _over_ranks(side: int, batch: int, settings: Settings) -> Table:
    """Each rank has a batch of this size: what grows is the reduction."""
    found = [_ranks.measure(world, side, batch, settings.size(9, 2)) for world in (1, 2)]
    figures = [(1e3 * one["seconds"], one["bytes"] / 1e6) for one in found]
    return _table("Ranks on one CPU (gloo), a batch each", "ranks", [1, 2], figures, [1, 1])


def _table(title: str, unit: str, sizes: list[int], figures: list[tuple[float, float]], work: list[Any]) -> Table:
    time, memory = figures[0]
    rows = [[size, ms, mb, due, ms / time, mb / memory] for size, (ms, mb), due in zip(sizes, figures, work)]
    return Table(title=title, columns=(unit, *COLUMNS), rows=rows)
