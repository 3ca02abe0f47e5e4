"""What a student learns from beside the adversary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from advloss_distill._simulation import Conditions


@dataclass(frozen=True, kw_only=True)
class Made:
    """What a student made in an iteration, and of what.

    Attributes:
        noisy: its inputs `(N, ...)`.
        timesteps: of these `(N,)`.
        steps: `(N,)`, the index of the step of sampling that each is (the simulation's).
        x0: its outputs, with their graph.
        condition: what they were made for.
        average: the student with averaged weights; call it without gradients. A term that does says so by an attribute
            `needs_average`: it is refused where the student is spread over processes.
    """

    noisy: Tensor
    timesteps: Tensor
    steps: Tensor
    x0: Tensor
    condition: Conditions
    average: nn.Module


class Term(Protocol):
    """A term of the student's loss: from what it made to a scalar. It is called under the accelerator's autocast."""

    def __call__(self, made: Made) -> Tensor:
        """The term, not yet weighted."""
