"""A step makes no host wait for the device: every component on the CPU, where reading fails, and on a GPU if one is there."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from catalogue import Combination, combinations
from core_tools import built_in, images, patch
from no_reading import NoReading
from torch import nn
from torch.nn import functional

import advloss
from advloss import _gate
from advloss._stepper import Stepper


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples and conditions are looked at on the CPU alone; on a GPU the device decides whether a step is good."""
    monkeypatch.setattr(_gate._inputs, "check_finite", lambda *args: None)
    monkeypatch.setattr(_gate._inputs, "check_condition", lambda *args: None)
    monkeypatch.setattr(Stepper, "asynchronous", True)


def step_unread(adversary: advloss.Adversary, samples: Any, *condition: Any) -> None:
    """The first step makes the optimizer's state and may read; the flag of the one before is read before the next."""
    adversary.discriminator_step(samples(), samples(), *condition)
    adversary.state_dict()
    real, fake = samples(), samples().requires_grad_()
    with NoReading():
        adversary.generator_loss(fake, real, *condition).backward()
        report = adversary.discriminator_step(real, fake, *condition)
    assert not bool(report.skipped)


WAYS = {
    "item": lambda t: t.sum().item(),
    "bool": lambda t: bool(t.sum() > 0),
    "cpu": lambda t: t.cpu(),
    "tolist": lambda t: t.tolist(),
    "numpy": lambda t: t.numpy(),
    "mask": lambda t: t[t > 0],
    "write by mask": lambda t: t.__setitem__(t > 0, torch.zeros(2)),
    "masked_select": lambda t: t.masked_select(t > 0),
    "unique": lambda t: t.unique(),
}


@pytest.mark.parametrize("way", WAYS)
def test_reading_is_seen(way: str) -> None:
    with NoReading(), pytest.raises(AssertionError, match="makes the host wait"):
        WAYS[way](torch.ones(2))


CONDITIONED = [one for one in combinations() if one.condition() is not None and one.loss == "hinge"]


@pytest.mark.parametrize("combination", CONDITIONED, ids=str)
def test_conditions_are_not_read(combination: Combination, as_on_a_gpu: None) -> None:
    step_unread(combination.adversary(), combination.samples, combination.condition())


@pytest.mark.parametrize("name", built_in("augmentation"))
def test_augmentations_read_nothing(name: str, as_on_a_gpu: None) -> None:
    step_unread(advloss.Adversary(patch(), "hinge", augmentations=name, seed=0), lambda: images(side=16))


def test_reused_logits_of_real_samples_are_not_read(as_on_a_gpu: None) -> None:
    adversary = advloss.Adversary(patch(), "relativistic", "r1", ["diffaugment"], reuse_real=True, seed=0)
    step_unread(adversary, lambda: images(side=16))


def test_the_adaptive_weight_reads_nothing() -> None:
    adversary, decoder, batch = (
        advloss.Adversary(patch(), "hinge", seed=0),
        nn.Conv2d(3, 3, 3, padding=1).double(),
        images(),
    )
    adaptive = advloss.AdaptiveWeight(adversary, decoder.weight)
    adversary._players._gate.check_finite = lambda *args, **samples: None  # type: ignore[method-assign]
    adversary.generator_loss(batch, batch)  # looks at the range of real samples, once
    with NoReading():
        fake = decoder(batch)
        adaptive(fake, functional.l1_loss(fake, batch), adversary.generator_loss(fake, batch)).backward()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here: CUDA's own synchronization check did not run")
@pytest.mark.parametrize("loss", ["hinge", "relativistic"])
@pytest.mark.parametrize("terms", [{}, {"r1": {"every": 16}}, {"lecam": {}}])
def test_a_hundred_steps_on_a_gpu_make_no_synchronization(terms: Any, loss: str) -> None:
    adversary = advloss.Adversary("patch", loss, terms, max_grad_norm=1.0, reuse_real=True, seed=0).to("cuda")
    model = nn.Conv2d(3, 3, 3, padding=1).cuda()
    optimizer = torch.optim.Adam(model.parameters(), fused=True)
    real = torch.rand(4, 3, 64, 64, device="cuda") * 2 - 1

    def step() -> None:
        fake = model(real)
        adversary.generator_loss(fake, real).backward()
        optimizer.step()
        optimizer.zero_grad()
        adversary.discriminator_step(real, fake)

    for _ in range(3):
        step()
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(100):
            step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
