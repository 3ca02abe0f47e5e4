"""Guarantee 8: float16 with a gradient scaler and two optimizers, and bfloat16, train as float32 does."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from core_tools import assert_same, built_in, images
from torch import Tensor, nn

import advloss

SEQUENCES, STEPS = 1000, 4


class Overflows(nn.Module):
    """A linear discriminator with a gradient that is infinite on demand, as in float16."""

    def __init__(self) -> None:
        super().__init__()
        self.dense, self.overflow = nn.Linear(2, 1), False

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        logits = self.dense(samples)
        return logits + (logits * 0).abs().sqrt() if self.overflow else logits


def pair() -> tuple[advloss.Adversary, nn.Linear, torch.optim.Optimizer]:
    adversary = advloss.Adversary(
        Overflows(), optimizer=functools.partial(torch.optim.SGD, lr=0.1), seed=0, max_skipped=STEPS
    )
    generator = nn.Linear(2, 2)
    return adversary, generator, torch.optim.SGD(generator.parameters(), lr=0.1)


def test_random_overflows_apply_what_a_float32_reference_applies() -> None:
    """Two optimizers and two scalers: each skips its own overflows, reports them, and loses nothing else."""
    scaled, generator, optimizer = pair()
    reference, other, reference_optimizer = pair()
    start = copy.deepcopy((scaled.state_dict(), generator.state_dict()))
    draws = torch.Generator().manual_seed(7)
    for _ in range(SEQUENCES):
        for adversary, model in ((scaled, generator), (reference, other)):
            adversary.load_state_dict(copy.deepcopy(start[0]))
            model.load_state_dict(start[1])
        scaled._update.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=2)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=2)
        ill = torch.rand(STEPS, 2, generator=draws) < 0.3
        for mine, theirs in ill.tolist():
            real, latent = torch.rand(2, 4, 2, generator=draws)
            fake = generator(latent)
            loss = scaled.generator_loss(fake) * (torch.inf if theirs else 1.0)
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            scaled.discriminator.overflow = mine
            assert bool(scaled.discriminator_step(real, fake).skipped) == mine
            scaled.discriminator.overflow = False

            fake = other(latent)
            reference.generator_loss(fake).backward()
            if not theirs:
                reference_optimizer.step()
            reference_optimizer.zero_grad()
            if not mine:
                reference.discriminator_step(real, fake)
        for one, two in ((scaled.discriminator, reference.discriminator), (generator, other)):
            for p, q in zip(one.parameters(), two.parameters()):
                assert torch.allclose(p, q, rtol=0, atol=1e-6)


@pytest.mark.parametrize("error", [KeyboardInterrupt, torch.OutOfMemoryError])
def test_training_goes_on_after_a_step_that_was_interrupted(error: type[BaseException]) -> None:
    """The scaler had unscaled its gradients; with the next step it does so again, at the scale that it had."""
    interrupted, straight = pair()[0], pair()[0]
    straight.load_state_dict(copy.deepcopy(interrupted.state_dict()))
    for adversary in (interrupted, straight):
        adversary._update.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=2)

    def interrupt(*_: Any) -> None:
        raise error("in the optimizer")

    samples = torch.rand(3, 2, 4, 2)
    for index, (real, fake) in enumerate(samples):
        if index == 1:
            hook = interrupted.optimizer.register_step_pre_hook(interrupt)
            for _ in range(2):
                with pytest.raises(error, match="in the optimizer"):
                    interrupted.discriminator_step(real, fake)
            hook.remove()
        for adversary in (interrupted, straight):
            assert not adversary.discriminator_step(real, fake).skipped
    assert_same(interrupted.state_dict(), straight.state_dict())


@pytest.mark.parametrize("name", built_in("loss"))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_losses_take_half_precision_logits_in_float32(name: str, dtype: torch.dtype) -> None:
    """Logits of 300 squared overflow float16."""

    class Large(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.ones(()))

        def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
            return (self.factor * samples.mean((1, 2, 3)) * 300).to(dtype)

    adversary = advloss.Adversary(Large(), () or (name if name != "wgan-gp" else "wasserstein"), seed=0)
    real, fake = torch.ones(2, 4, 3, 8, 8)
    loss = adversary.generator_loss(fake.requires_grad_(), real)
    report = adversary.discriminator_step(real, -fake)
    assert loss.dtype == report.loss.dtype == torch.float32
    assert loss.isfinite()
    assert not report.skipped


@pytest.mark.parametrize("name", built_in("regularizer"))
def test_regularizers_are_computed_in_float32_where_they_need_it(
    name: str, make_accelerator: Callable[..., Any]
) -> None:
    """Under bfloat16 a second-order term is, bit for bit, what it is without."""
    adversaries = [
        advloss.Adversary(("patch", {"width": 4, "depth": 1, "norm": "none"}), "hinge", [name], seed=0)
        for _ in range(2)
    ]
    adversaries[1].load_state_dict(copy.deepcopy(adversaries[0].state_dict()))
    adversaries[1].prepare(make_accelerator(mixed_precision="bf16"))
    real, fake = images(dtype=torch.float32), images(dtype=torch.float32)
    full, half = (adversary.discriminator_step(real, fake).regularizers[name] for adversary in adversaries)
    assert half.dtype == torch.float32
    if adversaries[0].regularizers[name].second_order:
        assert torch.equal(half, full)
    else:
        assert torch.allclose(half, full, rtol=0.05, atol=1e-3)


def test_a_scripts_own_autocast_does_not_reach_second_order_terms() -> None:
    adversaries = [advloss.Adversary(("patch", {"width": 4, "depth": 1}), "hinge", ["r1"], seed=0) for _ in range(2)]
    real, fake = images(dtype=torch.float32), images(dtype=torch.float32)
    full = adversaries[0].discriminator_step(real, fake)
    with torch.autocast("cpu", torch.bfloat16):
        inside = adversaries[1].discriminator_step(real, fake)
    assert inside.as_dict() == full.as_dict()
    for one, other in zip(*(adversary.discriminator.parameters() for adversary in adversaries)):
        assert torch.equal(one, other)
