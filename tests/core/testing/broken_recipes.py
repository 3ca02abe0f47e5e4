"""A recipe that passes every check, and one for each check that it fails."""

from __future__ import annotations

import functools
from typing import Any

import torch

from advloss import Recipe


def good_recipe(*, num_classes: int | None = None) -> Recipe:
    """Any combination."""
    return Recipe(discriminator=("mlp", {"width": 8, "num_classes": num_classes}), regularizers={"r1": {}})


def unknown_option(*, num_classes: int | None = None) -> Recipe:
    return Recipe(discriminator=("mlp", {"widht": 8}))


def unknown_loss(*, num_classes: int | None = None) -> Recipe:
    return Recipe(discriminator="mlp", loss="no-such-loss")


def no_optimizer(*, num_classes: int | None = None) -> Recipe:
    return Recipe(discriminator="mlp", generator_optimizer=functools.partial(list))  # type: ignore[arg-type]


def impossible(*, num_classes: int | None = None) -> Recipe:
    return Recipe(discriminator="mlp", augmentations=("diffaugment",))


def seeds(*, num_classes: int | None = None) -> Recipe:
    torch.manual_seed(0)
    return good_recipe(num_classes=num_classes)


def explodes(*, num_classes: int | None = None) -> Recipe:
    return Recipe(discriminator=("mlp", {"width": 8}), regularizers={"r1": {"weight": 1e300}})


BROKEN: list[tuple[str, Any, dict[str, Any]]] = [
    ("components", unknown_option, {}),
    ("components", unknown_loss, {}),
    ("optimizers", no_optimizer, {}),
    ("training", impossible, {}),
    ("building", seeds, {}),
    ("training", explodes, {}),
]
