"""Combinations that cannot work are refused with one that can: what the message proposes is built here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from core_tools import SMALL, samples
from torch import nn

import advloss
from advloss._rules import RULES

DINO = ("dino", SMALL["dino"][0])
PATCH = ("patch", SMALL["patch"][0])


def refused(*args: Any) -> str:
    with pytest.raises(advloss.CombinationError) as error:
        advloss.Adversary(*args, seed=0)
    return str(error.value)


def test_by_features_needs_features() -> None:
    message = refused(PATCH, "hinge", {"r1": {"inputs": "features"}})
    assert "use inputs='samples'" in message
    advloss.Adversary(PATCH, "hinge", {"r1": {"inputs": "samples"}})


@pytest.mark.parametrize("name", ["r1", "r2"])
def test_second_order_without_double_backward(name: str) -> None:
    message = refused(DINO, "hinge", {name: {}})
    assert message.endswith(f"build {name!r} with inputs='features' or method='finite-difference'")
    for form in ({"inputs": "features"}, {"method": "finite-difference"}):
        adversary = advloss.Adversary(DINO, "hinge", {name: form}, seed=0)
        assert not adversary.discriminator_step(samples("dino"), samples("dino")).skipped


@pytest.mark.parametrize("loss", ["wgan-gp", "hinge"])
def test_a_penalty_without_another_form_needs_another_discriminator(loss: str) -> None:
    message = refused(DINO, loss, {"gradient-penalty": {}})
    (found,) = re.findall(r"use the discriminator '(.*)'$", message)
    adversary = advloss.Adversary((found, SMALL[found][0]), loss, {"gradient-penalty": {}}, seed=0)
    assert not adversary.discriminator_step(samples(found), samples(found)).skipped


def test_compiled_module_has_no_double_backward() -> None:
    module = torch.compile(advloss.create_discriminator("mlp"), backend="eager")
    message = refused(module, "hinge", {"r1": {}})
    assert "a compiled module has no double backward; build 'r1' with method='finite-difference'" in message
    advloss.Adversary(module, "hinge", {"r1": {"method": "finite-difference"}})
    assert "pass the module before torch.compile, or use r1" in refused(module, "hinge", {"dragan": {}})


def older_spectral_norm() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.utils.spectral_norm(nn.Linear(4, 1)))


@pytest.mark.parametrize(
    "discriminator",
    [(PATCH[0], {**PATCH[1], "norm": "spectral"}), "spectral-norm", DINO, older_spectral_norm()],
    ids=["patch", "spectral-norm", "heads", "older"],
)
def test_clipping_what_a_normalization_undoes(discriminator: Any) -> None:
    message = refused(discriminator, "wasserstein", {"weight-clipping": {}})
    assert "'weight-clipping' changes stored parameters" in message
    assert "leave it out, or build the discriminator without that norm" in message
    advloss.Adversary((PATCH[0], {**PATCH[1], "norm": "none"}), "wasserstein", {"weight-clipping": {}}, seed=0)


def test_clipping_takes_a_normalization_that_does_not_train() -> None:
    frozen = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 4)).requires_grad_(False)
    advloss.Adversary(nn.Sequential(frozen, nn.Linear(4, 1)), "wasserstein", {"weight-clipping": {}}, seed=0)


def test_augmentation_of_other_dimensions() -> None:
    message = refused("mlp", "hinge", (), "diffaugment")
    (found,) = re.findall(r"or use '(.*)'$", message)
    advloss.Adversary("mlp", "hinge", (), found)


def test_what_is_proposed_comes_from_the_catalogue() -> None:
    @advloss.register_augmentation("jitter", dims=(0,))
    class Jitter(advloss.Augmentation):
        """A stranger's."""

        def forward(self, samples: torch.Tensor) -> torch.Tensor:
            return samples

    assert "'instance-noise' or 'jitter'" in refused("mlp", "hinge", (), "diffaugment")


def test_condition_for_a_discriminator_that_takes_none() -> None:
    adversary = advloss.Adversary(("unet", SMALL["unet"][0]))
    with pytest.raises(advloss.InputError, match="takes none; try 'dcgan' or "):
        adversary.generator_loss(samples("unet"), condition=torch.arange(4))


def test_every_rule_is_written_down() -> None:
    page = (Path(__file__).parents[2] / "docs" / "combinations.md").read_text(encoding="utf-8")
    for rule in RULES:
        assert rule.refuses in page
        assert rule.instead in page
