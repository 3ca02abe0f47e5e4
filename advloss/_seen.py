"""Frozen features that one player's turn computed, for the other's; and how samples are known again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Player = Literal["generator", "discriminator"]


@dataclass(frozen=True)
class Sighting:
    """Samples as they were once. Those of inference mode count no writes, and cannot be known again."""

    samples: Tensor  # holding them keeps their memory from being used again
    version: int

    @classmethod
    def of(cls, samples: Tensor) -> Sighting:
        return cls(samples.detach(), samples._version)

    def is_of(self, samples: object) -> bool:
        """Whether `samples` are the same ones, not written to since."""
        if not isinstance(samples, Tensor) or samples.is_inference() or samples._version != self.version:
            return False
        own = self.samples
        same = samples.data_ptr() == own.data_ptr() and samples.shape == own.shape
        return same and samples.stride() == own.stride() and samples.dtype == own.dtype


@dataclass(frozen=True)
class _Turn:
    """A player's last turn: on which samples; their features, if they are kept."""

    player: Player
    sighting: Sighting
    precision: torch.dtype | None
    features: Sequence[Tensor] | None


class SeenFeatures:
    """Remembers the features of the fakes of one turn, where it is the other player's turn on the same fakes next.

    Which player comes first is for the script to choose. What the second one needs is kept as long as its last turn was on
    the fakes of the turn before it.

    Attributes:
        wanted: by player, whether to keep features for its turn.
        through: what the kept features were computed from, where they have a graph to it.
    """

    def __init__(self) -> None:
        self._last: _Turn | None = None
        self.through: Tensor | None = None
        self.wanted: dict[Player, bool] = {"generator": False, "discriminator": True}

    def recall(self, player: Player, samples: Tensor) -> Sequence[Tensor] | None:
        """The features of `samples`, if they were kept, at the precision of now. To be called once a turn."""
        last = self._last
        if last is None or last.player == player:
            return None
        self.wanted[player] = last.sighting.is_of(samples)
        return last.features if self.wanted[player] and last.precision == precision_of(samples) else None

    def remember(self, player: Player, samples: Tensor, features: Sequence[Tensor] | None) -> None:
        """That `player` had its turn on `samples`, and what to keep of it."""
        if samples.is_inference():  # writes to it are not counted
            self._last = None
        else:
            self._last = _Turn(player, Sighting.of(samples), precision_of(samples), features)

    def forget(self) -> None:
        """Let go of all samples and features."""
        self._last = self.through = None

    def __reduce__(self) -> tuple[type[SeenFeatures], tuple[()]]:  # a copy has seen nothing; graphs cannot be copied
        return SeenFeatures, ()


def precision_of(samples: Tensor) -> torch.dtype | None:
    """What autocast computes in at this place; None where it is off."""
    device = samples.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
