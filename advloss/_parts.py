"""From names, options and objects to the parts of an adversary that fit together."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import nn

from advloss._create import build, build_all, by_short_name
from advloss._random import random_stream
from advloss._recipe import Component
from advloss._rules import batch_coupled, check_combination
from advloss._steps import check_frozen, check_without_state
from advloss.specs import LossSpec, Spec

Components = Mapping[str, Mapping[str, Any]] | Sequence[Component] | Component
_FUNCTIONS = {FunctionType, functools.partial}  # types that say nothing about what a component does


@dataclass(frozen=True)
class Parts:
    """What an adversary is made of.

    Attributes:
        discriminator: a module; `spec` is its own, None for one of the user's.
        loss: the game.
        regularizers: by short name, those that the loss brings along included.
        augmentations: by short name, in the order in which they are applied.
        batch_coupled: names of parts that look at a whole batch.
    """

    discriminator: Any
    spec: Spec | None
    loss: Any
    regularizers: dict[str, Any]
    augmentations: dict[str, nn.Module]
    batch_coupled: list[str]


def build_parts(
    discriminator: Component, loss: Component, regularizers: Components, augmentations: Components, seed: int | None
) -> Parts:
    """Build them, the discriminator's first weights from `seed` if there is one.

    Raises:
        UnknownComponentError, OptionError, PluginError: a component cannot be built.
        CombinationError: components that cannot work together.
    """
    game, _, loss_spec = build("loss", loss)
    built = build_all("regularizer", regularizers)
    if isinstance(loss_spec, LossSpec):
        brought = build_all("regularizer", loss_spec.regularizers)
        objects = {type(made) for name, (made, _) in built.items() if "/" not in name} - _FUNCTIONS
        missing = {n: made for n, made in brought.items() if n not in built and type(made[0]) not in objects}
        built.update(missing)
    built = by_short_name(built)
    augments = by_short_name(build_all("augmentation", augmentations))
    with random_stream(torch.device("cpu"), seed, "weights") if seed is not None else nullcontext():
        module, _, spec = build("discriminator", discriminator)
    check_combination(module, spec, built, augments)
    check_without_state(game)
    for augment, _ in augments.values():
        check_frozen(augment)
    looking = {type(module).__name__: (module, spec), type(game).__name__: (game, loss_spec), **built}
    return Parts(
        discriminator=module,
        spec=spec,
        loss=game,
        regularizers={name: made for name, (made, _) in built.items()},
        augmentations={name: made for name, (made, _) in augments.items()},
        batch_coupled=batch_coupled(looking),
    )
