"""Batches over and over, with a position that can be saved."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any, Generic, TypeVar

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
        own = getattr(self._batches, "generator", None)  # a DataLoader may have been given one
        return {**RandomState().state_dict(), **({} if own is None else {"own": own.get_state()})}

    def _take_up(self, random: dict[str, Any]) -> None:
        RandomState().load_state_dict(random)
        if "own" in random:
            self._batches.generator.set_state(random["own"])  # type: ignore[attr-defined]
