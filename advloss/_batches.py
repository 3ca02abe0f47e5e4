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
    there; the random state of the caller stays as it is.

    Args:
        batches: any iterable: a DataLoader, a list, a generator function's result that draws without end.
    """

    def __init__(self, batches: Iterable[T]) -> None:
        self._batches = batches
        self._pass: Iterator[T] | None = None
        self._began: dict[str, Any] = {}
        self._read = 0

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
        raise InputError("there are no more real batches: give an iterable that can be read again (a DataLoader)")

    def state_dict(self) -> dict[str, Any]:
        """The position."""
        return {"began": self._began, "read": self._read}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go to the position; reads the batches of the pass before it.

        Raises:
            StateError: there are fewer batches now.
        """
        self._pass, self._read, self._began = None, 0, {}
        if not state["read"]:
            return
        before = RandomState().state_dict()
        try:
            self._take_up(state["began"])
            self._begin(state["began"])
            assert self._pass is not None
            for _ in itertools.islice(self._pass, state["read"]):
                self._read += 1
        finally:
            RandomState().load_state_dict(before)
        if self._read < state["read"]:
            raise StateError(
                f"the data has {self._read} batches, {state['read']} were read of it; resume with the same"
            )

    def _begin(self, random: dict[str, Any]) -> None:
        self._began, self._read = random, 0
        self._pass = iter(self._batches)

    def _random(self) -> dict[str, Any]:
        own = [generator.get_state() for generator in _generators(self._batches)]
        number = getattr(self._batches, "iteration", None)  # of Accelerate's loaders: their samplers are seeded with it
        return {**RandomState().state_dict(), "own": own, **({} if number is None else {"iteration": number})}

    def _take_up(self, random: dict[str, Any]) -> None:
        RandomState().load_state_dict(random)
        for generator, state in zip(_generators(self._batches), random["own"]):
            generator.set_state(state)
        if "iteration" in random:
            self._batches.iteration = random["iteration"]  # type: ignore[attr-defined]


def _generators(loader: Any) -> list[torch.Generator]:
    """Those that a loader, its batch sampler and their samplers were given, each once."""
    holders, found = [loader], {}
    for holder in holders:
        generator = getattr(holder, "generator", None)
        if isinstance(generator, torch.Generator):
            found[id(generator)] = generator
        parts = (getattr(holder, name, None) for name in ("batch_sampler", "sampler"))
        holders += [part for part in parts if part is not None and all(part is not known for known in holders)]
    return list(found.values())
