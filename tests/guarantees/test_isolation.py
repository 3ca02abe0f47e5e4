"""Guarantee 1: neither player's turn touches what is the other's, whatever is raised in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from catalogue import Combination, every_combination
from core_tools import assert_same, copied, images, patch, snapshot
from torch import Tensor, nn

import advloss

CALLS = ("/saved/counters/generator", "/saved/fake_grad_norm")


@pytest.mark.parametrize("combination", every_combination())
def test_each_turn_leaves_the_other_players_side_alone(combination: Combination) -> None:
    adversary = combination.adversary()
    real, source, condition = combination.samples(), combination.samples().requires_grad_(), combination.condition()
    for p in adversary.discriminator.parameters():
        p.grad = torch.rand_like(p) if p.requires_grad else None  # what a script left there stays there
    adversary.discriminator_step(real, source, condition)
    fake = source * 1.0
    fake.retain_grad()

    before = snapshot(adversary)
    adversary.generator_loss(fake, real, condition).backward(retain_graph=True)
    assert_same(snapshot(adversary), before, but=CALLS)
    assert fake.grad is not None
    assert source.grad is not None

    given, random_state = copied((real, fake, source, source.grad, condition)), torch.get_rng_state()
    gradients = copied([p.grad for p in adversary.discriminator.parameters()])
    flags = [(p.requires_grad, p.is_leaf) for p in adversary.discriminator.parameters()]
    training = {name: module.training for name, module in adversary.discriminator.named_modules()}
    report = adversary.discriminator_step(real, fake, condition)
    assert not report.skipped
    assert_same((real, fake, source, source.grad, condition), given)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert_same([p.grad for p in adversary.discriminator.parameters()], gradients)
    assert [(p.requires_grad, p.is_leaf) for p in adversary.discriminator.parameters()] == flags
    assert {name: module.training for name, module in adversary.discriminator.named_modules()} == training


# -- what may be raised, and where --------------------------------------------------------------------------------


class Trap:
    """Raises once, at the place and with the error that it was armed for."""

    armed: str | None = None
    error: type[BaseException] = RuntimeError

    def __call__(self, place: str) -> None:
        if self.armed == place:
            type(self).armed = None
            raise self.error(f"trap in {place}")


TRAP = Trap()


class Discriminator(nn.Module):
    """Buffers of all kinds, noise, and a trap before, between and after them, and in its backward."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = patch(norm="spectral"), nn.BatchNorm2d(1).double()
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        TRAP("forward, at its start")
        self.calls += 1
        logits = self.first(nn.functional.dropout(samples))
        TRAP("forward, in its middle")
        logits = self.second(logits)
        if logits.requires_grad:
            logits.register_hook(lambda gradient: TRAP("backward"))
        if TRAP.armed == "second forward" and self.calls % 2 == 0:
            TRAP("second forward")
        return logits


class Loss(advloss.Loss):
    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        TRAP("loss")
        return (fake - real).mean()

    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        TRAP("loss")
        return -fake.mean()

    def accuracy(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        return super().accuracy(real, fake)


class Term(advloss.Regularizer):
    """A regularizer with a moving average; its own double backward is another place to fail."""

    second_order = "samples"
    differentiates = frozenset({"real"})

    def __init__(self) -> None:
        super().__init__(weight=1.0)
        self.register_buffer("average", torch.zeros((), dtype=torch.float64))

    def forward(self, discriminator: Any, real: Tensor, fake: Tensor, *conditions: Any) -> Tensor:
        TRAP("regularizer, at its start")
        self.average += 1
        (gradient,) = torch.autograd.grad(discriminator(real).sum(), [real], create_graph=True)
        gradient.register_hook(lambda g: TRAP("double backward"))
        TRAP("regularizer, at its end")
        return gradient.square().sum()


class Noise(advloss.Augmentation):
    def forward(self, samples: Tensor) -> Tensor:
        noisy = samples + torch.randn_like(samples)
        TRAP("augmentation")
        return noisy


class Adam(torch.optim.Adam):
    def zero_grad(self, set_to_none: bool = True) -> None:
        raise AssertionError("nobody clears a script's gradients")

    def step(self, closure: Any = None) -> Any:
        TRAP("optimizer")
        return super().step(closure)


PLACES = [
    "augmentation",
    "forward, at its start",
    "forward, in its middle",
    "second forward",
    "loss",
    "regularizer, at its start",
    "regularizer, at its end",
    "backward",
    "double backward",
    "clipping",
    "averaging over ranks",
    "optimizer",
]
GENERATORS = ["augmentation", "forward, at its start", "forward, in its middle", "loss"]
ERRORS = [RuntimeError, KeyboardInterrupt, torch.OutOfMemoryError]


@pytest.fixture
def trapped(monkeypatch: pytest.MonkeyPatch) -> advloss.Adversary:
    def sprung(place: str, function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **kwargs: (TRAP(place), function(*args, **kwargs))[1]

    from advloss import _update

    monkeypatch.setattr(_update, "clip_grads_with_norm_", sprung("clipping", _update.clip_grads_with_norm_))
    monkeypatch.setattr(_update.Gathered, "mean", sprung("averaging over ranks", _update.Gathered.mean))
    monkeypatch.setattr(Trap, "armed", None)
    adversary = advloss.Adversary(
        Discriminator(), Loss(), [Term(), "lecam"], [Noise()], max_grad_norm=1.0, optimizer=Adam, seed=0
    )
    for p in adversary.discriminator.parameters():
        p.grad = torch.rand_like(p)
    adversary.discriminator_step(images(), images())
    return adversary


def spring(monkeypatch: pytest.MonkeyPatch, place: str, error: type[BaseException]) -> None:
    monkeypatch.setattr(Trap, "armed", place)
    monkeypatch.setattr(Trap, "error", error)


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("place", PLACES)
def test_a_discriminator_step_that_raises_changes_nothing(
    trapped: advloss.Adversary, monkeypatch: pytest.MonkeyPatch, place: str, error: type[BaseException]
) -> None:
    real, fake = images(), images().requires_grad_()
    before, given = snapshot(trapped), copied((real, fake))
    spring(monkeypatch, place, error)
    with pytest.raises(error, match=f"trap in {place}"):
        trapped.discriminator_step(real, fake)
    assert_same(snapshot(trapped), before)
    assert_same((real, fake), given)
    assert fake.grad is None
    assert not trapped.discriminator_step(real, fake).skipped  # and training goes on


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("place", GENERATORS)
def test_a_generators_turn_that_raises_changes_nothing(
    trapped: advloss.Adversary, monkeypatch: pytest.MonkeyPatch, place: str, error: type[BaseException]
) -> None:
    fake = images().requires_grad_()
    before = snapshot(trapped)
    spring(monkeypatch, place, error)
    with pytest.raises(error, match=f"trap in {place}"):
        trapped.generator_loss(fake)
    assert_same(snapshot(trapped), before)
    assert fake.grad is None
    spring(monkeypatch, "backward", error)
    with pytest.raises(error, match="trap in backward"):
        trapped.generator_loss(fake).backward()
    assert_same(snapshot(trapped), before, but=CALLS)


@pytest.mark.parametrize("place", PLACES)
def test_a_micro_batch_that_raises_leaves_what_was_gathered(
    trapped: advloss.Adversary, monkeypatch: pytest.MonkeyPatch, make_accelerator: Callable[..., Any], place: str
) -> None:
    accelerator = make_accelerator(gradient_accumulation_steps=2)
    trapped.prepare(accelerator)
    real, fake = images(), images()
    with accelerator.accumulate(), pytest.warns(UserWarning, match="micro-batch"):
        trapped.discriminator_step(real, fake)
    before = snapshot(trapped)
    spring(monkeypatch, place, RuntimeError)
    with accelerator.accumulate():
        with pytest.raises(RuntimeError, match=f"trap in {place}"):
            trapped.discriminator_step(real, fake)
        assert_same(snapshot(trapped), before)
        assert trapped.discriminator_step(real, fake).grad_norm is not None
