"""Micro-batches inside Accelerate's `accumulate` make the step that one large batch makes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from core_tools import assert_same, copied, images, patch, snapshot
from torch import Tensor, nn

import advloss

LARGE = 8


def adversary(discriminator: nn.Module, **options: Any) -> advloss.Adversary:
    """Spectral norm, LeCam, R1, R2, clipping: everything that a wrong accumulation would show in."""
    lecam = advloss.create_regularizer("lecam", weight=0.5, decay=0.5).double()
    regularizers = [("r1", {"every": 2}), "r2", lecam]
    return advloss.Adversary(discriminator, "hinge", regularizers, seed=0, max_grad_norm=5.0, **options)


def state(adversary: advloss.Adversary) -> dict[str, Tensor]:
    modules = {"discriminator": adversary.discriminator, **adversary.regularizers}
    return {f"{n}.{key}": value.clone() for n, m in modules.items() for key, value in m.state_dict().items()}


def assert_close(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name in one:
        assert torch.allclose(one[name], other[name], rtol=0, atol=1e-12), name


@pytest.mark.parametrize("count", [1, 2, 4])
def test_micro_batches_equal_one_large_batch(count: int, make_accelerator: Callable[..., Any]) -> None:
    discriminator = patch(norm="spectral")
    whole = adversary(copy.deepcopy(discriminator))
    accelerator = make_accelerator(gradient_accumulation_steps=count)
    parts = adversary(copy.deepcopy(discriminator)).prepare(accelerator)
    model = accelerator.prepare(nn.Linear(1, 1))
    for step in range(4):
        real, fake = images(LARGE), images(LARGE)
        expected = whole.discriminator_step(real, fake)
        before = state(parts)
        for part, (r, f) in enumerate(zip(real.chunk(count), fake.chunk(count))):
            with accelerator.accumulate(model):
                assert torch.allclose(
                    parts.generator_loss(f), parts.loss.generator(spectral_frozen(parts, f)), rtol=1e-12
                )
                report = parts.discriminator_step(r, f)
            last = part == count - 1
            assert report.step == step
            assert (report.grad_norm is not None) == last
            if not last:
                assert_same(state(parts), before)
        assert_close(state(parts), state(whole))
        assert torch.allclose(report.grad_norm, expected.grad_norm, rtol=1e-12)
        assert parts.step == whole.step == step + 1
    assert float(whole.regularizers["LeCam"].ema_real) != 0


def spectral_frozen(adversary: advloss.Adversary, fake: Tensor) -> Tensor:
    """The logits of the discriminator as it stands, its vectors moved in a copy."""
    return copy.deepcopy(adversary.discriminator)(fake)


def test_steps_are_counted_when_gradients_sync(make_accelerator: Callable[..., Any]) -> None:
    accelerator = make_accelerator(gradient_accumulation_steps=3)
    held = advloss.Adversary(patch(), "hinge", {"r1": {"every": 2}}, discriminator_start_step=1, seed=0)
    held.prepare(accelerator)
    model = accelerator.prepare(nn.Linear(1, 1))
    seen = []
    for _ in range(9):
        with accelerator.accumulate(model):
            report = held.discriminator_step(images(), images())
        seen.append((report.step, report.loss is not None, "r1" in report.regularizers))
    # laziness counts steps, not micro-batches: all three of a step have the term, or none
    assert seen == [(0, False, False)] * 3 + [(1, True, False)] * 3 + [(2, True, True)] * 3


def test_the_generators_loss_is_not_divided_by_the_accumulation(make_accelerator: Callable[..., Any]) -> None:
    """`accelerator.backward` divides it; divided twice, a script trains with a fraction of its weight."""
    discriminator, fake = patch(), images()
    expected = advloss.Adversary(copy.deepcopy(discriminator), seed=0).generator_loss(fake)
    accelerator = make_accelerator(gradient_accumulation_steps=4)
    prepared = advloss.Adversary(discriminator, seed=0).prepare(accelerator)
    model = accelerator.prepare(nn.Linear(1, 1))
    with accelerator.accumulate(model):
        assert torch.equal(prepared.generator_loss(fake), expected)


def test_one_micro_batch_that_is_not_finite_skips_the_whole_step(make_accelerator: Callable[..., Any]) -> None:
    accelerator = make_accelerator(gradient_accumulation_steps=2)
    prepared = adversary(patch(norm="spectral")).prepare(accelerator)
    model = accelerator.prepare(nn.Linear(1, 1))
    before = snapshot(prepared)
    for scale in (1e200, 1.0):
        with accelerator.accumulate(model):
            report = prepared.discriminator_step(images() * scale, images())
    assert report.skipped
    assert_same(snapshot(prepared), before, but=("/saved/counters", "/torch"))
    for _ in range(2):
        with accelerator.accumulate(model):
            report = prepared.discriminator_step(images(), images())
    assert not report.skipped


def test_training_is_the_same_under_full_precision_and_no_accelerator(make_accelerator: Callable[..., Any]) -> None:
    discriminator = patch(torch.float32, norm="batch")
    plain = advloss.Adversary(copy.deepcopy(discriminator), augmentations="diffaugment", seed=0)
    prepared = advloss.Adversary(copy.deepcopy(discriminator), augmentations="diffaugment", seed=0)
    prepared.prepare(make_accelerator())
    for _ in range(3):
        real, fake = images(dtype=torch.float32), images(dtype=torch.float32)
        plain.discriminator_step(real, fake)
        prepared.discriminator_step(real, fake)
    assert_same(prepared.discriminator.state_dict(), plain.discriminator.state_dict())


@pytest.mark.parametrize("name", ["patch", "dino", "projected"])
def test_bfloat16_trains_with_second_order_terms(name: str, make_accelerator: Callable[..., Any]) -> None:
    """Those steps run in full precision, on features that the other player computed in half."""
    from core_tools import samples, small

    inputs = "samples" if name == "patch" else "features"
    regularizers = {r: {"inputs": inputs, "every": 2} for r in ("r1", "r2")}
    prepared = advloss.Adversary(small(name), "hinge", regularizers, seed=0)
    prepared.prepare(make_accelerator(mixed_precision="bf16"))
    for _ in range(3):
        real, fake = samples(name), samples(name).requires_grad_()
        loss = prepared.generator_loss(fake, real)
        loss.backward()
        assert fake.grad is not None
        assert fake.grad.dtype == torch.float32
        assert not prepared.discriminator_step(real, fake).skipped
    assert all(p.dtype == torch.float32 for p in prepared.discriminator.parameters())


def test_second_order_steps_run_in_full_precision(make_accelerator: Callable[..., Any]) -> None:
    """Gradients of gradients underflow in half: a step with R1 gives the very numbers of one without autocast."""
    discriminator = patch(torch.float32)
    plain = advloss.Adversary(copy.deepcopy(discriminator), "hinge", {"r1": {"every": 2}}, seed=0)
    half = advloss.Adversary(copy.deepcopy(discriminator), "hinge", {"r1": {"every": 2}}, seed=0)
    half.prepare(make_accelerator(mixed_precision="bf16"))
    real, fake = images(dtype=torch.float32), images(dtype=torch.float32)
    due, expected = half.discriminator_step(real, fake), plain.discriminator_step(real, fake)
    assert torch.equal(due.regularizers["r1"], expected.regularizers["r1"])
    assert torch.equal(due.loss, expected.loss)
    assert not torch.equal(half.discriminator_step(real, fake).loss, plain.discriminator_step(real, fake).loss)


def test_more_steps_than_micro_batches_are_refused_and_nothing_changes(make_accelerator: Any) -> None:
    """Two critic steps a micro-batch would be counted as two micro-batches, and divided wrongly."""
    accelerator = make_accelerator(gradient_accumulation_steps=2)
    model, adversary = nn.Conv2d(3, 3, 1).double(), advloss.Adversary(patch(), "hinge", seed=0).prepare(accelerator)
    model = accelerator.prepare(model)
    with accelerator.accumulate(model):
        for _ in range(2):
            adversary.discriminator_step(images(), images())
        before = copied(adversary.state_dict())
        with pytest.raises(advloss.CombinationError, match="more discriminator steps than micro-batches"):
            adversary.discriminator_step(images(), images())
        assert_same(adversary.state_dict(), before)
