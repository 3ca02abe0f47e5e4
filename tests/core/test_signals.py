"""What reports say of gradients and samples, beside textbook lines in float64; and that measuring leaves no trace."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from core_tools import assert_same, images, patch, snapshot
from no_reading import NoReading
from torch import Tensor, nn

import advloss
from advloss import _gate, _signals
from advloss._passing import PassingGradient
from advloss._players import Players
from advloss._stepper import Stepper


def pull_of(adversary: advloss.Adversary, fake: Tensor, real: Tensor) -> float:
    """The textbook: a backward of its own, each sample's gradient of its own loss."""
    fake = fake.detach().requires_grad_()
    with torch.random.fork_rng():
        logits, others = adversary.discriminator(fake), adversary.discriminator(real)
    loss = adversary.loss.generator(logits, others if adversary.loss.paired else None)
    (gradient,) = torch.autograd.grad(len(fake) * loss, fake)
    return float(gradient.flatten(1).norm(dim=1).square().mean().sqrt())


@pytest.mark.parametrize("loss", ["hinge", "saturating", "relativistic", "least-squares"])
def test_gradient_at_the_fakes(loss: str) -> None:
    adversary = advloss.Adversary(patch(), loss, weight=0.3, seed=0)
    model = nn.Conv2d(3, 3, 1).double()
    real, fake = images(), model(images())
    expected = pull_of(adversary, fake, real)
    assert adversary.discriminator_step(real, fake).fake_grad_norm is None  # no backward has been
    expected = pull_of(adversary, fake, real)
    (7.0 * adversary.generator_loss(fake, real) + fake.square().sum()).backward()  # neither weights nor other losses
    report = adversary.discriminator_step(real, fake)
    assert float(report.fake_grad_norm) == pytest.approx(expected, rel=1e-12)
    assert float(report.logit_gap) == float(report.real_logits - report.fake_logits)
    again = adversary.discriminator_step(real, fake)
    assert float(again.fake_grad_norm) == pytest.approx(
        expected, rel=1e-12
    )  # the last so far, for loops of n_critic steps


def test_gradient_at_the_fakes_survives_saving() -> None:
    one, two = (advloss.Adversary(patch(), "hinge", seed=0) for _ in range(2))
    one.generator_loss(images().requires_grad_()).backward()
    two.load_state_dict(one.state_dict())
    real, fake = images(), images()
    assert one.discriminator_step(real, fake).as_dict() == two.discriminator_step(real, fake).as_dict()
    state = {**one.state_dict(), "fake_grad_norm": "3"}
    with pytest.raises(advloss.StateError, match="fake_grad_norm is '3'"):
        two.load_state_dict(state)


def test_weight_zero_is_no_nan() -> None:
    adversary = advloss.Adversary(patch(), "hinge", weight=0.0, seed=0)
    adversary.generator_loss(images().requires_grad_()).backward()
    assert float(adversary.discriminator_step(images(), images()).fake_grad_norm) == 0.0


@pytest.mark.parametrize("discriminator", ["patch", "multiscale", "batch-norm"])
def test_measuring_changes_nothing(discriminator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seventy steps of both players with noise in the discriminator: bit by bit the same without hook and signals."""
    monkeypatch.setattr(_signals, "SAMPLES", 4)
    modules: dict[str, Callable[[], nn.Module]] = {
        "patch": lambda: nn.Sequential(nn.Dropout(0.2), patch(norm="spectral")),
        "multiscale": lambda: advloss.create_discriminator(
            "multiscale", discriminator=("patch", {"width": 4, "depth": 1, "norm": "none"}), scales=2
        ).double(),
        "batch-norm": lambda: nn.Sequential(patch(norm="batch"), nn.Dropout(0.2)),
    }
    ended, mixed = [], 0
    for measuring in (True, False):
        if not measuring:
            monkeypatch.setattr(PassingGradient, "watch", lambda *args: None)
            monkeypatch.setattr(Players, "_measure", lambda *args: None)
        torch.manual_seed(0)
        adversary = advloss.Adversary(Plain(modules[discriminator]()), "hinge", ["r1"], ["instance-noise"], seed=0)
        model = nn.Conv2d(3, 3, 1).double()
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(70):
            real = images(side=16)
            fake = model(real)
            optimizer.zero_grad()
            adversary.generator_loss(fake, real).backward()
            optimizer.step()
            report = adversary.discriminator_step(real, fake)
            mixed += "mixed_accuracy" in report.signals
        state = snapshot(adversary)
        state["saved"].pop("fake_grad_norm")
        ended.append((state, copy.deepcopy(model.state_dict())))
    assert_same(ended[0], ended[1])
    assert mixed == (discriminator == "batch-norm")


class Plain(nn.Module):
    """A module of one argument as a discriminator."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, samples: Tensor, condition: Any = None) -> Any:
        return self.module(samples)


def textbook(real: np.ndarray, fake: np.ndarray, classes: np.ndarray) -> dict[str, float]:
    """The same by loops over pairs."""
    count = len(real)

    def mean(one: np.ndarray, other: np.ndarray, pairs: list[tuple[int, int]]) -> float:
        return float(np.mean([np.sqrt(np.sum((one[i] - other[j]) ** 2)) for i, j in pairs]))

    apart = [(i, j) for i in range(count) for j in range(count) if i != j]
    alike = [(i, j) for i, j in apart if classes[i] == classes[j]]
    spread = mean(real, real, apart)
    covered = 0
    for i in range(count):
        nearest = sorted(float(np.sqrt(np.sum((real[i] - real[j]) ** 2))) for j in range(count) if j != i)
        covered += min(float(np.sqrt(np.sum((real[i] - f) ** 2))) for f in fake) <= nearest[4]
    return {
        "spread": spread,
        "diversity": mean(fake, fake, apart) / spread,
        "class_diversity": mean(fake, fake, alike) / mean(real, real, alike),
        "distance": mean(real, fake, [(i, j) for i in range(count) for j in range(count)]) / spread,
        "coverage": covered / count,
        "real_low": float(real.min()),
        "real_high": float(real.max()),
        "fake_low": float(fake.min()),
        "fake_high": float(fake.max()),
    }


@pytest.mark.parametrize("features", [2, 70])
def test_signals_are_the_textbooks(features: int) -> None:
    real, fake = torch.randn(24, features, dtype=torch.float64), 0.7 * torch.randn(24, features, dtype=torch.float64)
    classes = torch.arange(24) % 3
    signals = _signals.sample_signals(real, fake, classes, classes)
    expected = textbook(real.numpy(), fake.numpy(), classes.numpy())
    assert signals.keys() == expected.keys()
    for name, value in expected.items():
        assert float(signals[name]) == pytest.approx(value, rel=1e-9), name


def test_equal_distributions_have_coverage_one_and_no_distance() -> None:
    torch.manual_seed(0)
    rows = [_signals.sample_signals(torch.randn(64, 2), torch.randn(64, 2), None, None) for _ in range(50)]
    means = {name: float(torch.stack([row[name] for row in rows]).mean()) for name in rows[0]}
    assert means["coverage"] == pytest.approx(1 - 2**-5, abs=0.01)
    assert 2 * means["distance"] - 1 - means["diversity"] == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_small_batches_have_fewer_signals(count: int) -> None:
    signals = _signals.sample_signals(torch.rand(count, 3, 4, 4), torch.rand(count, 3, 4, 4), None, None)
    assert ("diversity" in signals) == (count > 1)
    assert "coverage" not in signals


def test_signals_come_with_every_seventeenth_step() -> None:
    adversary = advloss.Adversary(patch(), "hinge", seed=0)
    measured = [bool(adversary.discriminator_step(images(), images()).signals) for _ in range(35)]
    assert [step for step, it in enumerate(measured) if it] == [0, 17, 34]


def test_a_batch_without_two_of_a_class_says_nothing_of_classes() -> None:
    signals = _signals.sample_signals(torch.rand(3, 2), torch.rand(3, 2), torch.arange(3), torch.arange(3))
    report = advloss.Report(step=0, signals=signals)
    assert "signals/diversity" in report.as_dict()
    assert "signals/class_diversity" not in report.as_dict()


class Leaky(nn.Module):
    """Its logits are those of the batch's mean: all it knows is which batch it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.scale = nn.BatchNorm1d(2, affine=False), nn.Parameter(torch.ones(()))

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        self.norm(samples)
        return self.scale * (samples.mean() * torch.ones(len(samples)))


def test_mixed_accuracy_finds_out_who_looks_at_batches() -> None:
    adversary = advloss.Adversary(Leaky(), "hinge", optimizer=lambda p: torch.optim.SGD(p, 1e-6), seed=0)
    for _ in range(61):
        report = adversary.discriminator_step(1 + torch.rand(8, 2), -1 - torch.rand(8, 2))
    assert float(report.real_accuracy) == float(report.fake_accuracy) == 1.0
    assert float(report.signals["mixed_accuracy"]) == 0.5


def test_describe_tells_the_rate_before_any_schedule() -> None:
    """A rate that has fallen is not too far from the other player's."""
    cosine = functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=2)
    adversary = advloss.Adversary(patch(), scheduler=cosine)
    for _ in range(2):
        adversary.discriminator_step(*torch.rand(2, 4, 3, 8, 8, dtype=torch.float64))
    adversary.state_dict()  # the schedule has gone on
    assert adversary.optimizer.param_groups[0]["lr"] < 1e-9
    assert adversary.describe()["optimizer"]["lr"] == 2e-4


def test_describe_is_plain_data() -> None:
    import json

    adversary = advloss.Adversary(patch(norm="batch"), "hinge", {"r1": {"weight": 3.0, "every": 4}}, ["diffaugment"])
    assert adversary.describe()["samples"] is None
    adversary.discriminator_step(images(), images())
    about = json.loads(json.dumps(adversary.describe()))
    assert about["loss"] == "Hinge"
    assert about["discriminator"] == "PatchDiscriminator"
    assert about["regularizers"] == {"r1": {"weight": 3.0, "every": 4}}
    assert about["augmentations"] == ["diffaugment"]
    assert about["batch_norm"] is True
    assert about["samples"] == [4, 3, 8, 8]
    assert about["optimizer"] == {"name": "Adam", "lr": 2e-4}


def test_measuring_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU the host waits for no measurement."""
    monkeypatch.setattr(Stepper, "asynchronous", True)
    monkeypatch.setattr(_gate._inputs, "check_finite", lambda *args: None)
    adversary = advloss.Adversary(patch(norm="batch"), "hinge", seed=0)
    measured = set()
    for step in range(69):
        real, fake = images(8), images(8).requires_grad_()
        adversary._guard.forget()  # a flag is read when its step is long done
        with NoReading() if step else nullcontext():
            adversary.generator_loss(fake, real).backward()
            measured |= adversary.discriminator_step(real, fake).signals.keys()
    assert {"diversity", "coverage", "mixed_accuracy", "real_low"} <= measured
    with NoReading():
        classes = torch.arange(8) % 2
        assert "class_diversity" in _signals.sample_signals(real, fake, classes, {"class": classes})
