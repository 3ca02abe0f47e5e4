"""NaN and infinity: an error that names the tensor where it was given, a skipped step where it arose."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from core_tools import assert_same, images, patch, snapshot
from torch import Tensor, nn

import advloss

SKIPPED = ("/saved/counters",)


class Sick(nn.Module):
    """A discriminator with batch norm whose logits or gradients are NaN on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = patch(norm="batch")
        self.ill = ""

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        logits = self.inner(samples)
        if self.ill == "logits":
            return logits * torch.nan
        if self.ill == "gradient":
            return logits + (logits * 0).abs().sqrt()  # the root's slope at 0 is infinite, its value fine
        return logits


class SickLoss(advloss.Loss):
    """A loss that is infinite on demand, on finite logits."""

    ill = False

    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        return (fake - real).mean() / (0.0 if self.ill else 1.0)

    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return -fake.mean()


class SickTerm(advloss.Regularizer):
    """A user's regularizer that keeps a moving average."""

    ill = False

    def __init__(self) -> None:
        super().__init__(weight=1.0)
        self.register_buffer("ema", torch.zeros((), dtype=torch.float64))

    def forward(self, discriminator: Any, real: Tensor, fake: Tensor, *conditions: Any) -> Tensor:
        self.ema += 1
        return discriminator(real).mean() * (torch.inf if self.ill else 1.0)


@pytest.fixture
def adversary() -> advloss.Adversary:
    regularizers = [SickTerm(), advloss.create_regularizer("lecam")]
    adversary = advloss.Adversary(Sick(), SickLoss(), regularizers, ["instance-noise"], seed=0, max_skipped=2)
    adversary.discriminator_step(images(), images())
    return adversary


def fall_ill(adversary: advloss.Adversary, where: str) -> None:
    adversary.discriminator.ill = where
    adversary.loss.ill = where == "loss"
    adversary.regularizers["SickTerm"].ill = where == "SickTerm"


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize(("call", "which"), [("step", "real"), ("step", "fake"), ("generator", "fake")])
def test_samples_that_are_not_finite_are_named(
    adversary: advloss.Adversary, call: str, which: str, value: float
) -> None:
    given = {"real": images(), "fake": images()}
    given[which][1, 0, 2, 3] = value
    given[which][3, 2, 0, 0] = value
    before = snapshot(adversary)
    function = adversary.discriminator_step if call == "step" else adversary.generator_loss
    with pytest.raises(advloss.NonFiniteError, match=f"{which} samples hold NaN or infinity, in 2 of 4 samples"):
        function(**given)
    assert_same(snapshot(adversary), before)


def test_large_finite_samples_are_no_error() -> None:
    """Their sum may overflow; the samples are fine."""
    adversary = advloss.Adversary(nn.Linear(4, 1), seed=0)
    large = torch.full((2, 4), 3e38)
    adversary.generator_loss(large)


@pytest.mark.parametrize("where", ["logits", "gradient", "loss", "SickTerm"])
def test_a_step_whose_values_are_not_finite_is_skipped_whole(adversary: advloss.Adversary, where: str) -> None:
    real, fake = images(), images()
    before = snapshot(adversary)
    fall_ill(adversary, where)
    report = adversary.discriminator_step(real, fake)
    assert report.skipped
    assert report.as_dict()["skipped"] == 1.0
    assert_same(snapshot(adversary), before, but=SKIPPED)
    assert adversary.step == report.step + 1

    fall_ill(adversary, "")
    assert not adversary.discriminator_step(real, fake).skipped


@pytest.mark.parametrize(
    ("where", "named"),
    [
        ("logits", "real logits, fake logits, regularizer 'SickTerm', regularizer 'LeCam', loss"),
        ("gradient", r"gradient of inner\.layers\.0\.weight, gradient of .* and 2 more"),
        ("loss", "loss"),
        ("SickTerm", "regularizer 'SickTerm', loss"),
    ],
)
def test_too_many_in_a_row_are_an_error_that_names_the_value(
    adversary: advloss.Adversary, where: str, named: str
) -> None:
    real, fake = images(), images()
    before = snapshot(adversary)
    fall_ill(adversary, where)
    assert adversary.discriminator_step(real, fake).skipped
    assert adversary.discriminator_step(real, fake).skipped
    with pytest.raises(advloss.NonFiniteError, match=f"3 discriminator steps in a row .* not finite: {named}\\."):
        adversary.discriminator_step(real, fake)
    assert_same(snapshot(adversary), before, but=SKIPPED)


def test_a_good_step_ends_the_row(adversary: advloss.Adversary) -> None:
    for where in ("loss", "loss", "", "loss", "loss", ""):
        fall_ill(adversary, where)
        assert adversary.discriminator_step(images(), images()).skipped == bool(where)


def test_scheduler_and_clipping_wait_for_a_good_step() -> None:
    adversary = advloss.Adversary(
        Sick(),
        regularizers=["weight-clipping"],
        scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5),
    )
    rate, start = adversary.optimizer.param_groups[0]["lr"], [p.clone() for p in adversary.discriminator.parameters()]
    adversary.discriminator.ill = "logits"
    adversary.discriminator_step(images(), images())
    assert adversary.optimizer.param_groups[0]["lr"] == rate
    assert all(torch.equal(p, q) for p, q in zip(adversary.discriminator.parameters(), start))
    adversary.discriminator.ill = ""
    adversary.discriminator_step(images(), images())
    assert adversary.optimizer.param_groups[0]["lr"] == rate / 2
    assert max(float(p.detach().abs().max()) for p in adversary.discriminator.parameters()) <= 0.01


def test_hinge_on_sigmoid_logits_is_seen_by_nobody_but_the_accuracy() -> None:
    """A sigmoid before a hinge loss never saturates: every fake counts as taken for real, in every report."""
    discriminator = nn.Sequential(nn.Linear(2, 1), nn.Sigmoid())
    report = advloss.Adversary(Bare(discriminator), "hinge").discriminator_step(torch.rand(8, 2), torch.rand(8, 2))
    assert float(report.fake_accuracy) == 0.0
    assert float(report.real_accuracy) == 1.0


class Bare(nn.Module):
    """A module of one argument as a discriminator."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        return self.module(samples)
