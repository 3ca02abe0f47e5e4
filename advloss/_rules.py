"""Combinations that cannot work, refused when an adversary is built, with the nearest one that can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from advloss._features import FeatureDiscriminator
from advloss.errors import CombinationError
from advloss.specs import AugmentationSpec, DiscriminatorSpec, Spec


def check_combination(
    discriminator: nn.Module,
    spec: Spec | None,
    regularizers: Mapping[str, tuple[Any, Spec | None]],
    augmentations: Mapping[str, tuple[Any, Spec | None]],
) -> None:
    """Raise CombinationError for a rule that is broken."""
    for name, (regularizer, _) in regularizers.items():
        _check_features(name, regularizer, discriminator)
        _check_second_order(name, regularizer, discriminator, spec)
    dims = getattr(discriminator, "dims", None)
    for name, (_, augmentation_spec) in augmentations.items():
        if isinstance(augmentation_spec, AugmentationSpec) and dims is not None and dims not in augmentation_spec.dims:
            raise CombinationError(
                f"augmentation {name!r} takes {_words(augmentation_spec.dims)} spatial dimensions, this discriminator "
                f"{dims}; leave it out, or use 'instance-noise', which takes any"
            )


def _check_features(name: str, regularizer: Any, discriminator: nn.Module) -> None:
    by_features = "features" in (getattr(regularizer, "inputs", None), getattr(regularizer, "second_order", None))
    if by_features and not isinstance(discriminator, FeatureDiscriminator):
        raise CombinationError(
            f"regularizer {name!r} with inputs='features' differentiates by a discriminator's frozen features, and "
            f"{type(discriminator).__name__} has none; use inputs='samples'"
        )


def _check_second_order(name: str, regularizer: Any, discriminator: nn.Module, spec: Spec | None) -> None:
    if getattr(regularizer, "second_order", None) != "samples":
        return
    if isinstance(spec, DiscriminatorSpec) and not spec.double_backward:
        other = "inputs='features' or " if isinstance(discriminator, FeatureDiscriminator) else ""
        raise CombinationError(
            f"regularizer {name!r} differentiates the discriminator twice, and {spec.name!r} has no double backward; "
            f"for r1 and r2 use {other}method='finite-difference'; drop the others"
        )


def _words(dims: tuple[int, ...]) -> str:
    return " or ".join(map(str, dims))
