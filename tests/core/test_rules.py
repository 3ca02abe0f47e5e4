"""Combinations that cannot work are refused with one that can: what the message proposes is built here."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from core_tools import SMALL, samples
from plugin_folder import install, run
from torch import nn

import advloss
from advloss._rules import RULES, batch_coupled

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
    assert "pass the module before torch.compile with compile=True" in refused(module, "hinge", {"dragan": {}})


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


class Points(nn.Linear):
    """One logit for a point in the plane."""

    def __init__(self) -> None:
        super().__init__(2, 1)

    def forward(self, samples: torch.Tensor, condition: Any = None) -> torch.Tensor:
        return super().forward(samples).squeeze(1)


def test_what_is_proposed_takes_the_same_samples() -> None:
    advloss.register_discriminator("points", dims=(0,), double_backward=False)(Points)
    message = refused("points", "hinge", ["gradient-penalty"])
    found = re.findall(r"'([a-z0-9-]+)'", message.partition("use the discriminator ")[2])
    assert found == ["minibatch", "mlp"]  # the former is an MLP, too, unless told otherwise
    for name in found:
        advloss.Adversary(name, "hinge", ["gradient-penalty"]).discriminator_step(*torch.rand(2, 4, 2))


def test_a_shared_name_is_proposed_in_full() -> None:
    """Also where the other one that has it is not proposed."""
    advloss.register_augmentation("instance-noise", dims=(3,))(Points)
    assert refused("mlp", "hinge", (), "diffaugment").endswith("or use 'augmentations/instance-noise'")


def test_what_cannot_be_used_is_not_proposed(tmp_path: Path) -> None:
    source = """
        from advloss import AugmentationSpec, hookimpl

        @hookimpl
        def advloss_augmentations():
            return [AugmentationSpec(name="absent", target="no_such:Class", summary="One.", dims=(0,), requires=("no_such",))]
    """
    install(tmp_path, "advloss-absent", source)
    code = """
        import advloss
        try:
            advloss.Adversary("mlp", "hinge", augmentations="diffaugment")
        except advloss.CombinationError as error:
            print(str(error))
    """
    assert run(tmp_path, code).endswith("or use 'instance-noise'\n")


def test_parts_that_are_frozen_are_not_differentiated_twice() -> None:
    """R1 by features stops at the heads' inputs: only the heads must have a second derivative."""

    class Heads(nn.Linear):
        def forward(self, features: torch.Tensor, condition: Any = None) -> torch.Tensor:
            return super().forward(features)

    frozen = nn.Sequential(nn.Linear(2, 4), nn.SyncBatchNorm(4))
    r1 = {"r1": {"inputs": "features"}}
    advloss.Adversary(advloss.FeatureDiscriminator(frozen, Heads(4, 1)), "hinge", r1)
    heads = nn.Sequential(Heads(4, 1))
    heads.append(nn.SyncBatchNorm(1))
    message = refused(advloss.FeatureDiscriminator(nn.Linear(2, 4), heads), "hinge", r1)
    assert "1 is a SyncBatchNorm, which has no double backward" in message


def test_batch_norm_couples_samples_while_it_trains() -> None:
    norm = nn.Sequential(nn.BatchNorm1d(2))
    assert batch_coupled({"norm": (norm, None)}) == ["norm"]
    assert batch_coupled({"norm": (norm.eval(), None)}) == []


def test_condition_for_a_discriminator_that_takes_none() -> None:
    adversary = advloss.Adversary(("unet", SMALL["unet"][0]))
    with pytest.raises(advloss.InputError, match="takes none; try 'dcgan' or "):
        adversary.generator_loss(samples("unet"), condition=torch.arange(4))


def test_every_rule_is_written_down() -> None:
    page = (Path(__file__).parents[2] / "docs" / "combinations.md").read_text(encoding="utf-8")
    for rule in RULES:
        assert rule.refuses in page
        assert rule.instead in page
