"""A paper's combination, and what it says about training the other player."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from torch import Tensor
from torch.optim import Optimizer

Component: TypeAlias = str | tuple[str, Mapping[str, Any]] | Any
"""A name, a `(name, options)` pair, or an object of the user's own."""

MakeOptimizer: TypeAlias = Callable[[Iterable[Tensor]], Optimizer]


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The arguments of an `Adversary`, and its paper's advice for the generator.

    Attributes:
        discriminator, loss, regularizers, augmentations, weight, start_step, optimizer, scheduler, max_grad_norm:
            as in `Adversary`.
        discriminator_steps: discriminator steps for each generator step.
        generator_optimizer: from parameters to the generator's optimizer.
        ema_decay: of the generator's weights, by step; None where the paper keeps none.
    """

    discriminator: Component
    loss: Component = "losses/non-saturating"
    regularizers: Mapping[str, Mapping[str, Any]] | Sequence[Component] = ()
    augmentations: Mapping[str, Mapping[str, Any]] | Sequence[Component] = ()
    weight: float = 1.0
    start_step: int = 0
    optimizer: MakeOptimizer | None = None
    scheduler: Callable[[Optimizer], Any] | None = None
    max_grad_norm: float | None = None
    discriminator_steps: int = 1
    generator_optimizer: MakeOptimizer | None = None
    ema_decay: float | None = None

    def adversary_arguments(self) -> dict[str, Any]:
        """Those fields that an `Adversary` takes."""
        advice = {"discriminator_steps", "generator_optimizer", "ema_decay"}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in advice}
