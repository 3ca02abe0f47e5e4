"""Guarantee 7: a value that is not finite changes nothing, is counted and named, and costs a healthy step no wait."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from catalogue import Combination, every_combination
from core_tools import assert_same, images, patch, snapshot
from no_reading import NoReading
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

import advloss
from advloss._guard import Flag

FUSED = [functools.partial(torch.optim.Adam, lr=1e-3, fused=True), functools.partial(torch.optim.AdamW, fused=True)]


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[bool]]:
    """Samples are not looked at, the device decides, and flags are read one step late: the path of a GPU, on the CPU."""
    from advloss import _gate, _stepper

    arrived: list[bool] = []
    read = Flag.read

    def of_an_earlier_step(flag: Flag) -> bool:
        with _disable_current_modes():
            arrived.append(read(flag))
        return arrived[-1]

    monkeypatch.setattr(Flag, "read", of_an_earlier_step)
    monkeypatch.setattr(_gate._inputs, "check_finite", lambda *args: None)
    monkeypatch.setattr(_stepper.Stepper, "asynchronous", True)
    return arrived


@pytest.mark.parametrize("combination", every_combination())
def test_a_healthy_step_reads_nothing_and_a_bad_one_changes_nothing(
    combination: Combination, as_on_a_gpu: list[bool]
) -> None:
    adversary = combination.adversary(max_grad_norm=1.0)
    # a class condition is checked on the CPU by reading it; on a GPU it is not
    condition = combination.condition()
    real, fake = combination.samples(), combination.samples()
    adversary.discriminator_step(real, fake, condition)  # makes the optimizer's state, and is read
    adversary.state_dict()
    as_on_a_gpu.clear()
    if condition is None:
        with NoReading():
            adversary.generator_loss(fake.requires_grad_(), real).sum()
            report = adversary.discriminator_step(real, fake)
        assert as_on_a_gpu == []
    else:
        report = adversary.discriminator_step(real, fake, condition)
    assert isinstance(report.skipped, Tensor)
    assert not report.skipped

    adversary.state_dict()  # counts what was pending
    before = snapshot(adversary)
    spoiled = real.detach().clone()
    spoiled[1] = torch.nan
    report = adversary.discriminator_step(spoiled, fake, condition)
    assert report.as_dict()["skipped"] == 1.0
    assert_same(snapshot(adversary), before, but=("/saved/counters", "/discriminator/versions"))
    assert adversary.state_dict()["counters"]["skipped"] == 1
    assert not adversary.discriminator_step(real, fake, condition).skipped


@pytest.mark.parametrize("optimizer", [*FUSED, functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9, fused=True)])
@pytest.mark.parametrize("regularizer", ["lecam", "weight-clipping", "decay"])
def test_the_device_decides_as_the_host_does(optimizer: Any, regularizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same steps, good and bad, the first of all bad too: bitwise the same weights, moments and schedule."""
    from advloss import _gate

    monkeypatch.setattr(_gate._inputs, "check_finite", lambda *args: None)
    schedule = functools.partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.9)
    ended = []
    for asynchronous in (False, True):
        torch.manual_seed(0)
        adversary = advloss.Adversary(
            patch(norm="batch" if regularizer == "weight-clipping" else "spectral"),
            "hinge",
            [Decay() if regularizer == "decay" else regularizer],
            optimizer=optimizer,
            scheduler=schedule,
            seed=0,
        )
        adversary._update.stepper.asynchronous = asynchronous
        skipped = []
        for bad in (True, False, False, True, True, False, True, False):
            real = images() * (torch.nan if bad else 1.0)
            skipped.append(bool(adversary.discriminator_step(real, images()).skipped))
        assert skipped == [True, False, False, True, True, False, True, False]
        ended.append(adversary.state_dict())
    assert_same(ended[1], ended[0])


class Decay(advloss.Regularizer):
    """Acts after each step, on the discriminator and on a count of its own: done twice is not done once."""

    def __init__(self) -> None:
        super().__init__(weight=0.0)
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))

    def forward(self, discriminator: Any, real: Tensor, fake: Tensor, *conditions: Any) -> Tensor:
        return real.new_zeros(())

    @torch.no_grad()
    def after_step(self, discriminator: nn.Module, real_logits: Any, fake_logits: Any) -> None:
        self.calls += real_logits[0].mean()
        for parameter in discriminator.parameters():
            parameter.mul_(0.9)


class Sick(nn.Module):
    """A discriminator with batch norm that is ill on demand."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.ill = patch(norm="batch"), ""

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        logits = self.inner(samples)
        if self.ill == "gradient":
            return logits + (logits * 0).abs().sqrt()  # the root's slope at 0 is infinite, its value fine
        return logits * (torch.inf if self.ill == "logits" else 1.0)


class SickLoss(advloss.Loss):
    ill = False

    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        return (fake - real).mean() / (0.0 if self.ill else 1.0)

    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return -fake.mean()


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize(
    ("place", "named"),
    [
        ("real", "real samples, real logits"),
        ("fake", "fake samples, fake logits"),
        ("logits", "not finite: real logits, fake logits, loss"),
        ("loss", "not finite: loss"),
        ("gradient", r"not finite: gradient of inner\.layers\.0\.weight, .*gradient of"),
        ("parameter", r"not finite: parameter inner\.layers\.2\.weight, real logits"),
        ("buffer", r"not finite: buffer discriminator\.inner\.layers\.3\.running_"),
    ],
)
def test_training_stops_after_so_many_in_a_row_and_names_the_tensor(
    place: str, named: str, asynchronous: bool, as_on_a_gpu: list[bool]
) -> None:
    adversary = advloss.Adversary(Sick(), SickLoss(), seed=0, max_skipped=2)
    adversary._update.stepper.asynchronous = asynchronous
    given = {"real": images(), "fake": images()}
    adversary.discriminator_step(**given)
    if place in given:
        given[place] = given[place] * torch.nan
    elif place == "parameter":
        with torch.no_grad():
            adversary.discriminator.inner.layers[2].weight[0] = torch.nan
    elif place == "buffer":  # a variance that overflows leaves logits and gradients finite
        with torch.no_grad():
            adversary.discriminator.inner.layers[2].weight.mul_(1e200)
    adversary.discriminator.ill, adversary.loss.ill = place, place == "loss"
    adversary.state_dict()
    before = snapshot(adversary)
    for _ in range(2):
        assert adversary.discriminator_step(**given).skipped
    if asynchronous:  # the third flag is read at the fourth step
        assert adversary.discriminator_step(**given).skipped
    with pytest.raises(advloss.NonFiniteError, match=f"3 discriminator steps in a row .*{named}"):
        adversary.discriminator_step(**given)
    assert_same(snapshot(adversary), before, but=("/saved/counters", "/discriminator/versions"))
