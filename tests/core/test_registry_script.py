"""Components that a script registers are names from there on; a name that two provide is nobody's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from core_tools import images, patch
from torch import Tensor, nn

import advloss


class Wavelet(nn.Module):
    """One logit a sample.

    More words.
    """

    def __init__(self, *, width: int = 4) -> None:
        super().__init__()
        self.dense = nn.Linear(3 * 8 * 8, width, dtype=torch.float64)
        self.last = nn.Linear(width, 1, dtype=torch.float64)

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        return self.last(self.dense(samples.flatten(1))).squeeze(1)


class Cubic(advloss.Loss):
    """Third powers."""

    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        return (fake - real).pow(3).mean()

    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return -fake.pow(3).mean()


class Small(advloss.Regularizer):
    """Small logits."""

    def __init__(self, *, weight: float = 0.5, every: int = 1) -> None:
        super().__init__(weight=weight, every=every)

    def forward(self, discriminator: Any, real: Tensor, fake: Tensor, *conditions: Any) -> Tensor:
        return self.weight * discriminator(real).square().mean()


class Flip(advloss.Augmentation):
    """Upside down."""

    def forward(self, samples: Tensor) -> Tensor:
        return samples.flip(-2)


def register_all() -> None:
    assert advloss.register_discriminator("wavelet", smallest=8)(Wavelet) is Wavelet
    advloss.register_loss("cubic", paired=False)(Cubic)
    advloss.register_regularizer("small", second_order=False)(Small)
    advloss.register_augmentation("flip", dims=(1, 2))(Flip)


def test_all_four_kinds_are_names_from_there_on() -> None:
    register_all()
    adversary = advloss.Adversary(("wavelet", {"width": 3}), "cubic", {"small": {"weight": 2.0}}, "flip", seed=0)
    assert isinstance(adversary.discriminator, Wavelet)
    assert adversary.discriminator.dense.out_features == 3
    real, fake = images(), images()
    report = adversary.discriminator_step(real, fake)
    assert report.loss is not None
    assert set(report.regularizers) == {"small"}
    assert isinstance(advloss.create_augmentation("flip"), Flip)


def test_they_are_rows_of_the_catalogue() -> None:
    register_all()
    (row,) = advloss.list_components("discriminator", "wave*")
    assert (row.name, row.plugin, row.full_name) == ("wavelet", "script", "script/wavelet")
    assert (row.summary, row.status, row.distribution) == ("One logit a sample.", "ok", "this script")
    assert row.spec.smallest == 8
    (row,) = advloss.list_components("augmentation", "script/*")
    assert row.spec.dims == (1, 2)


def test_options_are_checked_as_any_others() -> None:
    register_all()
    with pytest.raises(advloss.OptionError, match="did you mean 'width'"):
        advloss.create_discriminator("wavelet", widht=3)
    with pytest.raises(advloss.UnknownComponentError, match="Did you mean 'cubic'"):
        advloss.create_loss("cubik")


def test_what_is_declared_is_checked_when_registered() -> None:
    before = advloss.list_components(pattern="script/*")
    with pytest.raises(advloss.OptionError, match="name='Wave Let'; give lower case"):
        advloss.register_discriminator("Wave Let")(Wavelet)
    with pytest.raises(advloss.OptionError, match=r"loss 'cubic': .*'colour'; fields are those of LossSpec"):
        advloss.register_loss("cubic", colour=3)(Cubic)
    with pytest.raises(advloss.OptionError, match="LossSpec 'cubic': paired=1; give True or False"):
        advloss.register_loss("cubic", paired=1)(Cubic)
    assert advloss.list_components(pattern="script/*") == before


@pytest.mark.parametrize("kind", ["discriminator", "loss", "regularizer", "augmentation"])
def test_decorator_without_a_name_and_on_no_class(kind: str) -> None:
    """It would have put a function in the place of the class, in silence."""
    register: Any = getattr(advloss, f"register_{kind}")
    with pytest.raises(advloss.OptionError, match=rf"Flip.* for a name; write @register_{kind}\('name'\) on a class"):

        @register
        class Flip(nn.Module):
            pass

    with pytest.raises(advloss.OptionError, match=r"'odd'\) is on Linear\(.*; put it on a class"):
        register("odd")(nn.Linear(2, 1))


@pytest.mark.parametrize("doc", [None, "", " ", "\n  \n"])
def test_a_class_that_says_nothing(doc: str | None) -> None:
    advloss.register_loss("mute")(type("Mute", (Cubic,), {"__doc__": doc}))
    (row,) = advloss.list_components("loss", "mute")
    assert row.summary == row.spec.summary == "registered in this script"


def test_one_decorator_on_two_classes() -> None:
    register = advloss.register_loss("same", summary="Said once.")
    register(Cubic)
    register(type("Cubic", (Cubic,), {"__doc__": "Another."}))
    (row,) = advloss.list_components("loss", "same")
    assert row.summary == "Said once."


def test_clash_with_an_installed_plugin_names_both() -> None:
    advloss.register_loss("hinge")(Cubic)
    message = r"losses/hinge \(advloss [\d.]+\) and script/hinge \(this script\); write the full name"
    with pytest.raises(advloss.UnknownComponentError, match=message):
        advloss.Adversary(patch(), "hinge")
    assert isinstance(advloss.Adversary(patch(), "script/hinge").loss, Cubic)
    assert type(advloss.Adversary(patch(), "losses/hinge").loss).__name__ == "Hinge"
    assert {row.full_name for row in advloss.list_components("loss", "hinge")} == {"losses/hinge", "script/hinge"}


def test_loss_finds_its_own_regularizer_in_spite_of_a_clash_elsewhere() -> None:
    advloss.register_loss("r1")(Cubic)  # another kind: no clash
    assert isinstance(advloss.create_loss("r1"), Cubic)
    assert type(advloss.create_regularizer("r1")).__name__ == "R1"


def test_redefinition_in_a_notebook_replaces() -> None:
    advloss.register_loss("cubic", summary="The first.")(Cubic)
    again = type("Cubic", (Cubic,), {"__doc__": "The second."})
    advloss.register_loss("cubic")(again)
    (row,) = advloss.list_components("loss", "cubic")
    assert row.summary == "The second."
    assert type(advloss.create_loss("cubic")) is again


def test_loss_may_bring_regularizers() -> None:
    advloss.register_loss("cubic-gp", regularizers={"gradient-penalty": {"weight": 3.0}, "small": {}})(Cubic)
    advloss.register_regularizer("small")(Small)
    adversary = advloss.Adversary(Wavelet(), "cubic-gp", ["small"])
    assert {n: r.weight for n, r in adversary.regularizers.items()} == {"small": 0.5, "gradient-penalty": 3.0}


@pytest.mark.parametrize(
    ("register", "target", "create"),
    [
        (advloss.register_discriminator, lambda: 3, advloss.create_discriminator),
        (advloss.register_loss, dict, advloss.create_loss),
        (advloss.register_regularizer, lambda: 3, advloss.create_regularizer),
        (advloss.register_augmentation, lambda: lambda x: x, advloss.create_augmentation),
    ],
)
def test_target_that_makes_something_else_is_broken(register: Any, target: Any, create: Any) -> None:
    def make() -> Any:
        return target()

    register("odd")(make)
    with pytest.raises(advloss.PluginError, match=r"script/odd \(this script\) is broken: a"):
        create("odd")


def test_unknown_kind() -> None:
    with pytest.raises(advloss.UnknownComponentError, match="discriminator, loss, regularizer"):
        advloss.list_components("discriminators")
