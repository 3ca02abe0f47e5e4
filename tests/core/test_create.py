"""From a name to a component: everything in the catalogue can be built by it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from core_tools import SMALL, built_in, condition_for, samples
from torch import nn

import advloss


def test_small_forms_cover_the_catalogue() -> None:
    """A discriminator that is new must be added to core_tools, or these tests would not cover it."""
    assert sorted(SMALL) == sorted(built_in("discriminator"))


@pytest.mark.parametrize("name", built_in("discriminator"))
def test_discriminators_by_name(name: str) -> None:
    module = advloss.create_discriminator(name, **SMALL[name][0])
    assert isinstance(module, nn.Module)
    logits = module(samples(name), condition_for(name))
    assert all(len(scale) == 4 for scale in advloss.as_scales(logits))


@pytest.mark.parametrize("name", built_in("loss"))
def test_losses_by_name_and_full_name(name: str) -> None:
    loss = advloss.create_loss(name)
    assert type(advloss.create_loss(f"losses/{name}")) is type(loss)
    real, fake = torch.randn(4), torch.randn(4)
    assert loss.discriminator(real, fake).ndim == loss.generator(fake, real).ndim == 0
    spec = advloss.list_components("loss", name)[0].spec
    assert spec.paired == loss.paired


@pytest.mark.parametrize("name", built_in("regularizer"))
def test_regularizers_by_name(name: str) -> None:
    regularizer = advloss.create_regularizer(name)
    discriminator = advloss.create_discriminator("mlp")
    term = regularizer(discriminator, torch.rand(4, 2), torch.rand(4, 2))
    assert term.ndim == 0
    declared = advloss.list_components("regularizer", name)[0].spec.second_order
    assert declared == (getattr(regularizer, "second_order", None) is not None)


@pytest.mark.parametrize("name", built_in("augmentation"))
def test_augmentations_by_name(name: str) -> None:
    given = samples("patch")
    assert advloss.create_augmentation(name)(given).shape == given.shape


@pytest.mark.parametrize("name", built_in("recipe"))
def test_recipes_by_name_build_what_they_name(name: str) -> None:
    recipe = advloss.create_recipe(name)
    assert isinstance(recipe, advloss.Recipe)
    arguments = {**recipe.adversary_arguments(), "discriminator": advloss.create_discriminator("mlp")}
    if name == "add":  # its R1 is by features: it needs a discriminator that has some
        arguments["discriminator"] = advloss.create_discriminator("dino", **SMALL["dino"][0])
    adversary = advloss.Adversary(**arguments)
    assert adversary.weight == recipe.weight
    assert isinstance(recipe.discriminator, tuple)
    known, options = recipe.discriminator
    assert known in [row.full_name for row in advloss.list_components("discriminator")]
    assert isinstance(options, dict)


@pytest.mark.parametrize(
    ("create", "name", "options", "message"),
    [
        (advloss.create_discriminator, "patch", {"widths": 3}, "discriminator 'patch' has no option 'widths'; did you"),
        (advloss.create_loss, "hinge", {"margin": 3}, "loss 'hinge' has no option 'margin'; it takes scale"),
        (advloss.create_regularizer, "r1", {"gamma": 1}, "regularizer 'r1' has no option 'gamma'"),
        (advloss.create_augmentation, "diffaugment", {"polisy": ""}, "did you mean 'policy'"),
        (
            advloss.create_recipe,
            "vqgan",
            {"start": 3},
            "recipe 'vqgan' has no option 'start'; did you mean 'start_step'",
        ),
    ],
)
def test_unknown_option(create: Any, name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(advloss.OptionError, match=message):
        create(name, **options)


def test_required_option_is_asked_for() -> None:
    def make(*, size: int, colour: str, width: int = 3) -> nn.Module:
        return nn.Linear(size, width)

    advloss.register_discriminator("choosy")(make)
    with pytest.raises(advloss.OptionError, match="'choosy' needs the options size, colour"):
        advloss.create_discriminator("choosy")
    assert advloss.create_discriminator("choosy", size=2, colour="red").out_features == 3


def test_errors_are_python_errors_too() -> None:
    """A script that catches LookupError, TypeError or ValueError catches ours."""
    with pytest.raises(LookupError):
        advloss.create_loss("none-such")
    with pytest.raises(TypeError):
        advloss.create_loss("hinge", zzz=1)
    with pytest.raises(ValueError):
        advloss.Adversary("patch").generator_loss(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))
