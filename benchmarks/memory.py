"""Peaks of memory, and what they are bought with: R1, recomputed activations, the adaptive weight."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from advloss import Adversary
from benchmarks._harness import Row, Settings, compare
from benchmarks._players import DiscriminatorAlone
from benchmarks.autoencoder import Ours as Autoencoder


class FixedWeight(Autoencoder):
    """The same objective with lambda 1."""

    def __init__(self, side: int, batch: int, device: str) -> None:
        super().__init__(side, batch, device)
        self.objective.adaptive = None


def rows(settings: Settings) -> Iterator[Row]:
    """At a batch at which activations outweigh parameters."""
    side, batch = settings.size(64, 16), settings.size(4, 2)
    size, options = (side, batch, settings.device), {"width": settings.size(32, 8), "norm": "spectral", "depth": 1}
    where = f"discriminator's step, {side} x {side}, batch {batch}"

    def step(**arguments: object) -> partial[DiscriminatorAlone]:
        return partial(DiscriminatorAlone, partial(Adversary, ("patch", options), **arguments), *size)

    exact, near = {"r1": {}}, {"r1": {"method": "finite-difference"}}
    yield compare(f"exact R1, {where}", step(regularizers=exact), "no R1", step(), settings, agreement=None)
    estimated = step(regularizers=near)
    yield compare(f"finite-difference R1, {where}", estimated, "no R1", step(), settings, agreement=None)
    yield compare(f"checkpoint=True, {where}", step(checkpoint=True), "without", step(), settings)
    again = step(regularizers=exact, checkpoint=True)
    yield compare(f"checkpoint=True, exact R1, {where}", again, "without", step(regularizers=exact), settings)
    pair = (partial(kind, settings.size(64, 32), 1, settings.device) for kind in (Autoencoder, FixedWeight))
    adaptive, fixed = pair
    yield compare("adaptive weight, autoencoder's step", adaptive, "fixed weight", fixed, settings, agreement=None)
