"""Batches over and over, with a position that can be saved."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

import torch

from advloss._training_state import RandomState
from advloss.errors import InputError, StateError

T = TypeVar("T")


class EndlessBatches(Generic[T]):
    """`batches`, read again from the start when they end.

    Its state is how many batches of this pass were read, and the random numbers that the pass began with. To take it
    up, the pass is begun with the same random numbers (a shuffling loader draws its order from them) and read up to
    there; the random state of the caller stays as it is. Loaders with `persistent_workers` are the exception: their
    workers keep random numbers of their own, which nobody can read.

    Args:
        batches: any iterable: a DataLoader, a list, a generator function's result that draws without end.
    """

    def __init__(self, batches: Iterable[T]) -> None:
        self._batches = batches
        self._pass: Iterator[T] | None = None
        self._began: dict[str, Any] = {}
        self._read = self._passes = 0

    def __iter__(self) -> EndlessBatches[T]:
        return self

    def __next__(self) -> T:
        for _ in range(2):
            if self._pass is None:
                self._begin(self._random())
            assert self._pass is not None
            for batch in self._pass:
                self._read += 1
                return batch
            self._pass = None
        raise InputError(
            "there are no more real batches: give an iterable that can be read again (a DataLoader "
            "does; with drop_last its batch must not be larger than the data)"
        )

    def state_dict(self) -> dict[str, Any]:
        """The position."""
        return {"began": self._began, "read": self._read, "passes": self._passes, "now": self._own_random()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the position; reads the batches of the pass before it.

        Raises:
            StateError: there are fewer batches now.
        """
        self._pass, self._read, self._began, self._passes = None, 0, {}, state["passes"]
        if state["read"]:
            self._read_again(state["began"], state["read"])
        self._set_own_random(state["now"])  # a script may draw from the same generators
        if self._read < state["read"]:
            raise StateError(
                f"the data has {self._read} batches, {state['read']} were read of it; resume with the same"
            )

    def _read_again(self, began: dict[str, Any], count: int) -> None:
        before = RandomState().state_dict()
        try:
            RandomState().load_state_dict(began)
            self._set_own_random(began["own"])
            self._passes -= 1
            self._begin(began)
            assert self._pass is not None
            for _ in itertools.islice(self._pass, count):
                self._read += 1
        finally:
            RandomState().load_state_dict(before)

    def _begin(self, random: dict[str, Any]) -> None:
        if not hasattr(self._batches, "iteration"):  # Accelerate's loaders do it themselves
            for sampler in _parts(self._batches, "set_epoch"):
                sampler.set_epoch(self._passes)
        self._began, self._read = random, 0
        self._passes += 1
        self._pass = iter(self._batches)

    def _random(self) -> dict[str, Any]:
        return {**RandomState().state_dict(), "own": self._own_random()}

    def _own_random(self) -> dict[str, Any]:
        """What the order of the data follows from beside the global generators."""
        return {
            "generators": [generator.get_state() for generator in _generators(self._batches)],
            "seeds": [sampler.initial_seed for sampler in _parts(self._batches, "initial_seed")],
            "iteration": getattr(self._batches, "iteration", None),  # Accelerate's seedable samplers add it
        }

    def _set_own_random(self, random: dict[str, Any]) -> None:
        for generator, state in zip(_generators(self._batches), random["generators"]):
            generator.set_state(state)
        for sampler, seed in zip(_parts(self._batches, "initial_seed"), random["seeds"]):
            sampler.initial_seed = seed
        if random["iteration"] is not None:
            self._batches.iteration = random["iteration"]  # type: ignore[attr-defined]


def _parts(loader: Any, attribute: str) -> list[Any]:
    """Of a loader, its batch sampler and their samplers those that have `attribute`, each once."""
    parts: list[Any] = [loader]
    for part in parts:
        inner = (getattr(part, name, None) for name in ("batch_sampler", "sampler"))
        parts += [one for one in inner if one is not None and all(one is not known for known in parts)]
    return [part for part in parts if hasattr(part, attribute)]


def _generators(loader: Any) -> list[torch.Generator]:
    found = [part.generator for part in _parts(loader, "generator") if isinstance(part.generator, torch.Generator)]
    return list({id(generator): generator for generator in found}.values())
