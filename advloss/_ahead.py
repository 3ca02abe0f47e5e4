"""What a paired loss asked about real samples in the generator's turn, for the discriminator's turn on the same ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from advloss._condition import Condition
from advloss._judge import Judge
from advloss._random import set_stream_state, stream_state
from advloss._seen import Sighting


@dataclass(frozen=True)
class Asked:
    """A turn of the discriminator that has begun: it has looked at the real samples.

    Attributes:
        judge: what it was, with the logits in its memory and their graph.
        real, condition: as the judge has seen them.
    """

    judge: Judge
    real: Tensor
    condition: Condition | None
    _given: list[Sighting]
    _step: tuple[Any, ...]
    _player: tuple[Any, ...]
    _random: tuple[Tensor, ...]

    def go_on(self) -> None:
        """Draw the random numbers that follow those of the forward."""
        set_stream_state(self.real.device, self._random)


class Ahead:
    """Keeps the begun turn for the discriminator's next one, and gives it out if that is the same turn."""

    def __init__(self) -> None:
        self._asked: Asked | None = None

    def keep(
        self,
        judge: Judge,
        seen: tuple[Tensor, Condition | None],
        given: tuple[Tensor, Condition | None],
        step: tuple[Any, ...],
    ) -> None:
        """That `judge` was asked about `seen`, which the script gave as `given`, as a part of this `step`."""
        tensors = [tensor for tensor in given if tensor is not None]
        if all(isinstance(t, Tensor) and not t.is_inference() for t in (*tensors, *_tensors(judge.player))):
            sightings = [Sighting.of(tensor) for tensor in tensors]  # type: ignore[arg-type]
            self._asked = Asked(judge, *seen, sightings, step, _state_of(judge.player), stream_state(seen[0].device))

    def take(self, real: Tensor, condition: Condition | None, step: tuple[Any, ...]) -> Asked | None:
        """The turn on `real` that has begun, once."""
        asked, self._asked = self._asked, None
        if asked is None:
            return None
        tensors = [tensor for tensor in (real, condition) if tensor is not None]
        given = len(tensors) == len(asked._given) and all(s.is_of(t) for s, t in zip(asked._given, tensors))
        return asked if given and asked._step == step and asked._player == _state_of(asked.judge.player) else None

    def forget(self) -> None:
        """Let go of what was kept."""
        self._asked = None

    def __reduce__(self) -> Any:  # a copy has begun nothing
        return Ahead, ()


def _tensors(player: nn.Module) -> Iterator[Tensor]:
    yield from player.parameters()
    yield from player.buffers()


def _state_of(player: nn.Module) -> tuple[Any, ...]:
    """Differs when a parameter or buffer was written to, replaced or frozen, or a part switched to or from evaluation."""
    tensors = ((id(t), t.data_ptr(), t._version, t.requires_grad) for t in _tensors(player))
    return (*tensors, *(part.training for part in player.modules()))
