"""The checks of recipes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from advloss._adversary import Adversary
from advloss._create import build, build_all, check_known, load_target, options_of
from advloss._recipe import Recipe
from advloss._registry import Entry, find
from advloss.testing._case import DiscriminatorCases
from advloss.testing._component import ComponentTests, expect_full_names, lacks_package
from advloss.testing._expect import expect, not_applicable


class RecipeTests(ComponentTests):
    """Name a recipe in a subclass."""

    kind = "recipe"

    def recipes(self) -> Iterable[tuple[dict[str, Any], Recipe]]:
        """Options, and the recipe with them."""
        return [(options, self.make(options)) for options in self.options]

    def test_components(self) -> None:
        """Every component that it names is there, takes the options that it gives, and is named in full."""
        for _, recipe in self.recipes():
            build("loss", recipe.loss)
            build_all("regularizer", recipe.regularizers)
            build_all("augmentation", recipe.augmentations)
            name, options = _named(recipe)
            entry = _usable(name)
            for field in ("discriminator", "loss", "regularizers", "augmentations"):
                expect_full_names(getattr(recipe, field), field)
            check_known(f"discriminator {name!r}", options, options_of(load_target(entry)))

    def test_optimizers(self) -> None:
        """Its optimizers and its scheduler can be made."""
        for options, recipe in self.recipes():
            for name in ("optimizer", "generator_optimizer"):
                make = getattr(recipe, name)
                if make is not None:
                    made = make([torch.nn.Parameter(torch.zeros(2))])
                    expect(isinstance(made, torch.optim.Optimizer), f"with {options}: {name} makes a {type(made)}")
                    if name == "optimizer" and recipe.scheduler is not None:
                        recipe.scheduler(made)

    def test_training(self) -> None:
        """Its adversary, around a small form of its discriminator, takes a step of both players."""
        for options, recipe in self.recipes():
            name, _ = _named(recipe)
            small = type("Small", (DiscriminatorCases,), {"name": name})()
            _usable(name)
            case = small.cases[0]
            arguments = {**recipe.adversary_arguments(), "discriminator": (name, case.options), "start_step": 0}
            adversary = Adversary(**arguments, seed=0)
            fake = case.samples().requires_grad_()
            condition = case.condition(fake)
            adversary.generator_loss(fake, real=case.samples(), condition=condition).backward()
            report = adversary.discriminator_step(case.samples(), fake, condition)
            expect(not report.skipped, f"with {options}: the discriminator's step was not finite")


def _usable(name: str) -> Entry:
    """The discriminator of this name, where the packages that it requires are installed."""
    entry = find("discriminator", name)
    if lacks_package(entry):
        not_applicable(f"{name} {entry.status}")
    return entry


def _named(recipe: Recipe) -> tuple[str, dict[str, Any]]:
    if isinstance(recipe.discriminator, str):
        return recipe.discriminator, {}
    if isinstance(recipe.discriminator, tuple):
        name, options = recipe.discriminator
        return name, dict(options)
    not_applicable("its discriminator is an object")
