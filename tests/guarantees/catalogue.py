"""Every built-in combination of discriminator, loss and regularizer that the catalogue and its rules allow, small.

A new component is in on the day that the catalogue lists it: it needs an entry in `SMALL` only where its defaults
are too large for a test.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from core_tools import SMALL, built_in
from torch import Tensor, nn

import advloss
from advloss._create import load_target, options_of
from advloss._registry import find
from advloss._rules import check_combination

WAYS: dict[str, dict[str, Any]] = {
    "": {},
    "finite-difference": {"method": "finite-difference", "sigma": 0.3},  # smaller ones enlarge rounding
    "features": {"inputs": "features"},
}
"""Options that make another term of a regularizer that takes them."""


@dataclass(frozen=True)
class Combination:
    """One discriminator with one loss and at most one regularizer, named ``discriminator-loss-regularizer(way)``."""

    discriminator: str
    loss: str
    regularizer: str | None = None
    way: str = ""
    norm: str = ""

    def __str__(self) -> str:
        term = f"{self.regularizer or 'none'}{f'({self.way})' if self.way else ''}"
        return f"{self.discriminator}-{self.loss}-{term}"

    def adversary(self, dtype: torch.dtype = torch.float64, *, every: int = 1, **arguments: Any) -> advloss.Adversary:
        """The adversary, float64 and seeded unless said otherwise; its regularizer is due on each `every`-th step."""
        terms = []
        if self.regularizer is not None:
            options = dict(WAYS[self.way])
            if "every" in options_of(load_target(find("regularizer", self.regularizer))):
                options["every"] = every
            terms = [(self.regularizer, options)]
        named = (self.discriminator, _options(self.discriminator, self.norm))
        adversary = advloss.Adversary(named, self.loss, terms, **{"seed": 0, **arguments})
        for module in (adversary.discriminator, *adversary.regularizers.values()):
            module.to(dtype)
        return adversary

    def samples(self, count: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
        """Random samples `(count, ...)` in [-1, 1] from torch's global generator."""
        return torch.rand(count, *_shape(self.discriminator), dtype=dtype) * 2 - 1

    def condition(self, count: int = 4) -> Tensor | None:
        """What the discriminator asks for, different from sample to sample."""
        module = _discriminator(self.discriminator, self.norm)
        if classes := getattr(module, "num_classes", None):
            return torch.arange(count) % classes
        return None

    def without_batch_norm(self) -> Combination:
        """The same without normalization, where the discriminator has it as an option and couples its batch by it."""
        known = options_of(load_target(find("discriminator", self.discriminator)))
        coupled = getattr(_discriminator(self.discriminator, ""), "batch_coupled", False)
        return replace(self, norm="none") if coupled and "norm" in known else self

    @property
    def batch_coupled(self) -> bool:
        """Whether one sample's term depends on the others of its batch."""
        declared = [find("loss", self.loss).spec.batch_coupled]
        if self.regularizer:
            declared.append(find("regularizer", self.regularizer).spec.batch_coupled)
        module = _discriminator(self.discriminator, self.norm)
        declared.append(getattr(module, "batch_coupled", find("discriminator", self.discriminator).spec.batch_coupled))
        return any(declared)


def combinations(
    discriminators: Iterable[str] | None = None,
    losses: Iterable[str] | None = None,
    regularizers: Iterable[str | None] | None = None,
) -> list[Combination]:
    """All that are allowed, of these parts or of the whole catalogue."""
    return [
        Combination(discriminator, loss, name, way)
        for discriminator in (built_in("discriminator") if discriminators is None else discriminators)
        for loss in (built_in("loss") if losses is None else losses)
        for name, way in _terms()
        if (regularizers is None or name in regularizers) and _allowed(discriminator, loss, name, way)
    ]


def covering() -> list[Combination]:
    """Fewer: every allowed pair of discriminator and regularizer, with losses taking turns, so that all of them occur."""
    found: dict[tuple[str, str | None, str], list[Combination]] = {}
    for combination in combinations():
        key = (combination.discriminator, combination.regularizer, combination.way)
        found.setdefault(key, []).append(combination)
    return [allowed[place % len(allowed)] for place, allowed in enumerate(found.values())]


def every_combination() -> list[Any]:
    """Parameters of a test: the whole product, all but `covering` behind ``-m slow``."""
    short = set(covering())
    return [
        pytest.param(combination, id=str(combination), marks=() if combination in short else pytest.mark.slow)
        for combination in combinations()
    ]


@functools.cache
def _terms() -> list[tuple[str | None, str]]:
    """Each regularizer in each of its ways; None is none."""
    found: list[tuple[str | None, str]] = [(None, "")]
    for name in built_in("regularizer"):
        known = options_of(load_target(find("regularizer", name)))
        found += [(name, way) for way, options in WAYS.items() if options.keys() <= known.keys()]
    return found


@functools.cache
def _allowed(discriminator: str, loss: str, regularizer: str | None, way: str) -> bool:
    spec = find("discriminator", discriminator).spec
    terms = {name: dict(options) for name, options in find("loss", loss).spec.regularizers.items()}
    if regularizer is not None:
        terms[regularizer] = WAYS[way]
    # what the rules look at: a network is built to list the tests only where they look at its layers
    stand_in = advloss.FeatureDiscriminator(nn.Identity(), nn.Identity()) if spec.features else nn.Identity()
    if any(find("regularizer", name).spec.constraint for name in terms):
        stand_in = _discriminator(discriminator, "")
    built = {
        name: (advloss.create_regularizer(name, **options), find("regularizer", name).spec)
        for name, options in terms.items()
    }
    try:
        check_combination(stand_in, spec, built, {})
    except advloss.CombinationError:
        return False
    return True


@functools.cache
def _discriminator(name: str, norm: str) -> nn.Module:
    with torch.random.fork_rng([]):
        return advloss.create_discriminator(name, **_options(name, norm))


def _options(name: str, norm: str) -> dict[str, Any]:
    return {**(SMALL[name][0] if name in SMALL else {}), **({"norm": norm} if norm else {})}


def _shape(name: str) -> tuple[int, ...]:
    if name in SMALL:
        return SMALL[name][1]
    module, spec = _discriminator(name, ""), find("discriminator", name).spec
    dims = getattr(module, "dims", spec.dims[0])
    channels = getattr(module, "in_channels" if dims else "in_features", 3)
    side = getattr(module, "resolution", None) or getattr(module, "smallest", spec.smallest)
    return (channels, *[side] * dims)


def same_draws() -> None:
    """Make random points of regularizers the same for each sample, however a batch is split: torch's draws are constant."""
    torch.rand = lambda *shape, **options: torch.full(_flat(shape), 0.3, **_kept(options))
    torch.rand_like = lambda like, **options: torch.full_like(like, 0.3)
    torch.randn = lambda *shape, **options: torch.full(_flat(shape), 0.7, **_kept(options))
    torch.randn_like = lambda like, **options: torch.full_like(like, 0.7)


def _flat(shape: Any) -> tuple[int, ...]:
    return tuple(shape[0]) if len(shape) == 1 and not isinstance(shape[0], int) else shape


def _kept(options: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name in ("dtype", "device")}
