"""The hooks of the entry-point group ``advloss``. Each returns specs; none runs in a training step."""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from advloss.specs import AugmentationSpec, DiscriminatorSpec, LossSpec, RecipeSpec, RegularizerSpec

hookspec = pluggy.HookspecMarker("advloss")
hookimpl = pluggy.HookimplMarker("advloss")


@hookspec
def advloss_discriminators() -> Iterable[DiscriminatorSpec]:
    """Discriminators: modules that score samples."""
    raise AssertionError("a hook specification is never called")


@hookspec
def advloss_losses() -> Iterable[LossSpec]:
    """Losses: the game on real and fake logits."""
    raise AssertionError("a hook specification is never called")


@hookspec
def advloss_regularizers() -> Iterable[RegularizerSpec]:
    """Regularizers: terms of the discriminator's loss that look at more than logits."""
    raise AssertionError("a hook specification is never called")


@hookspec
def advloss_augmentations() -> Iterable[AugmentationSpec]:
    """Augmentations: what the discriminator sees of real and fake samples alike."""
    raise AssertionError("a hook specification is never called")


@hookspec
def advloss_recipes() -> Iterable[RecipeSpec]:
    """Recipes: a paper's whole combination with its defaults."""
    raise AssertionError("a hook specification is never called")
