"""A recipe that passes every check, and one for each check that it fails."""

from __future__ import annotations

import functools
from typing import Any

import torch

from advloss import Recipe


def good_recipe(*, num_classes: int | None = None) -> Recipe:
    """Any combination."""
    return Recipe(
        discriminator=("discriminators/mlp", {"width": 8, "num_classes": num_classes}),
        loss="losses/hinge",
        regularizers={"regularizers/r1": {}},
    )


def unknown_option(*, num_classes: int | None = None) -> Recipe:
    return Recipe(discriminator=("discriminators/mlp", {"widht": 8}))


def unknown_loss(*, num_classes: int | None = None) -> Recipe:
    return Recipe(discriminator="discriminators/mlp", loss="losses/no-such-loss")


def no_optimizer(*, num_classes: int | None = None) -> Recipe:
    return Recipe(discriminator="discriminators/mlp", generator_optimizer=functools.partial(list))  # type: ignore[arg-type]


def impossible(*, num_classes: int | None = None) -> Recipe:
    return Recipe(discriminator="discriminators/mlp", augmentations=("augmentations/diffaugment",))


def seeds(*, num_classes: int | None = None) -> Recipe:
    torch.manual_seed(0)
    return good_recipe(num_classes=num_classes)


def explodes(*, num_classes: int | None = None) -> Recipe:
    return Recipe(
        discriminator=("discriminators/mlp", {"width": 8}), regularizers={"regularizers/r1": {"weight": 1e300}}
    )


FULL: dict[str, Any] = {"discriminator": ("discriminators/mlp", {"width": 8}), "loss": "losses/hinge"}


def short_discriminator(*, num_classes: int | None = None) -> Recipe:
    return Recipe(discriminator="mlp", loss="losses/hinge")


def short_loss(*, num_classes: int | None = None) -> Recipe:
    return Recipe(discriminator=FULL["discriminator"], loss=("hinge", {}))


def short_regularizer(*, num_classes: int | None = None) -> Recipe:
    return Recipe(**FULL, regularizers={"r1": {"weight": 1.0}})


def short_augmentation(*, num_classes: int | None = None) -> Recipe:
    return Recipe(**FULL, augmentations=(("instance-noise", {}),))


def one_of_two_short(*, num_classes: int | None = None) -> Recipe:
    return Recipe(**FULL, regularizers=("regularizers/r1", "lecam"))


BROKEN: list[tuple[str, Any, dict[str, Any]]] = [
    ("components", unknown_option, {}),
    ("components", unknown_loss, {}),
    ("optimizers", no_optimizer, {}),
    ("training", impossible, {}),
    ("building", seeds, {}),
    ("training", explodes, {}),
    ("components", short_discriminator, {}),
    ("components", short_loss, {}),
    ("components", short_regularizer, {}),
    ("components", short_augmentation, {}),
    ("components", one_of_two_short, {}),
]
