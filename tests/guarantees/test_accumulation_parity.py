"""Guarantee 3: micro-batches inside Accelerate's `accumulate` make the step that one large batch makes."""

from __future__ import annotations

import copy
import functools
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from catalogue import Combination, every_combination, same_draws
from core_tools import images, patch
from torch import Tensor, nn

import advloss

LARGE = 8
LR = 1e-3
SGD = functools.partial(torch.optim.SGD, lr=LR)  # Adam would turn rounding into steps


@pytest.fixture
def draws(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("rand", "rand_like", "randn", "randn_like"):
        monkeypatch.setattr(torch, name, getattr(torch, name))  # put back after the test
    same_draws()


def tensors(adversary: advloss.Adversary) -> dict[str, Tensor]:
    modules = {"discriminator": adversary.discriminator, **adversary.regularizers}
    return {f"{n}.{key}": value.clone() for n, m in modules.items() for key, value in m.state_dict().items()}


def parts(batch: Any, count: int) -> list[Any]:
    return [None] * count if batch is None else batch.chunk(count)


@pytest.mark.parametrize("combination", every_combination())
def test_micro_batches_equal_one_large_batch(
    combination: Combination, make_accelerator: Callable[..., Any], request: pytest.FixtureRequest
) -> None:
    combination = combination.without_batch_norm()
    batches = [(combination.samples(LARGE), combination.samples(LARGE)) for _ in range(3)]
    condition = combination.condition(LARGE)
    request.getfixturevalue("draws")
    whole = combination.adversary(every=2, optimizer=SGD)
    start = copy.deepcopy(whole.state_dict())
    reports = [whole.discriminator_step(real, fake, condition) for real, fake in batches]
    frozen = isinstance(whole.discriminator, advloss.FeatureDiscriminator)  # large, and the heads are what trains
    for count in (4,) if frozen else ((1, 4), (2, 8))[len(str(combination)) % 2]:  # in turns
        accelerator = make_accelerator(gradient_accumulation_steps=count)
        model = accelerator.prepare(nn.Linear(1, 1))
        adversary = combination.adversary(every=2, optimizer=SGD)
        adversary.load_state_dict(start)
        adversary.prepare(accelerator)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for step, (real, fake) in enumerate(batches):
                micro = zip(parts(real, count), parts(fake, count), parts(condition, count))
                for r, f, c in micro:
                    with accelerator.accumulate(model):
                        adversary.generator_loss(f, r, c)
                        report = adversary.discriminator_step(r, f, c)
                assert report.step == step
                assert combination.batch_coupled or torch.allclose(
                    report.grad_norm, reports[step].grad_norm, rtol=1e-12
                )
        named = [str(w.message) for w in caught if "micro-batch at a time" in str(w.message)]
        assert len(named) == (combination.batch_coupled and count > 1)
        if not combination.batch_coupled:
            expected = tensors(whole)
            step_size = LR * max(float(report.grad_norm) for report in reports)  # what rounding is relative to
            for name, value in tensors(adversary).items():
                size = max(1.0, step_size, float(expected[name].abs().max()))
                assert torch.allclose(value, expected[name], rtol=0, atol=1e-12 * size), (count, name)


def test_two_adversaries_and_a_model_step_together(make_accelerator: Callable[..., Any]) -> None:
    """`accumulate` is given the model alone: everything else steps when its gradients do."""
    accelerator = make_accelerator(gradient_accumulation_steps=2)
    model, data = nn.Conv2d(3, 3, 1).double(), torch.utils.data.DataLoader(torch.rand(8, 3, 8, 8).double(), 2)
    model, optimizer, data = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.1), data)
    one, two = (advloss.Adversary(patch(), seed=0).prepare(accelerator) for _ in range(2))
    seen = []
    for batch in data:
        with accelerator.accumulate(model):
            before = [
                [p.detach().clone() for p in m.parameters()] for m in (model, one.discriminator, two.discriminator)
            ]
            fake = model(batch)
            accelerator.backward(one.generator_loss(fake) + two.generator_loss(fake))
            optimizer.step()
            optimizer.zero_grad()
            one.discriminator_step(batch, fake)
            two.discriminator_step(batch, fake)
            after = [list(m.parameters()) for m in (model, one.discriminator, two.discriminator)]
            seen.append([not all(map(torch.equal, b, a)) for b, a in zip(before, after)])
    assert seen == [[False] * 3, [True] * 3] * 2


class Listener(advloss.Augmentation):
    """Keeps what `after_step` is given."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[Any] = []

    def forward(self, samples: Tensor) -> Tensor:
        return samples

    def after_step(self, discriminator: nn.Module, real_logits: Any, fake_logits: Any) -> None:
        self.heard.append((real_logits, fake_logits))


def test_after_step_hears_the_logits_of_all_micro_batches(make_accelerator: Callable[..., Any]) -> None:
    discriminator, real, fake = patch(), images(LARGE), images(LARGE)
    heard = []
    for count in (1, 4):
        accelerator = make_accelerator(gradient_accumulation_steps=count)
        adversary = advloss.Adversary(copy.deepcopy(discriminator), augmentations=[Listener()], seed=0)
        adversary.prepare(accelerator)
        for r, f in zip(real.chunk(count), fake.chunk(count)):
            with accelerator.accumulate():
                adversary.discriminator_step(r, f)
        heard.append(adversary.augmentations["Listener"].heard)
    ((one_real,), (one_fake,)), ((all_real,), (all_fake,)) = heard[0][0], heard[1][0]
    assert [len(calls) for calls in heard] == [1, 1]
    assert torch.allclose(all_real, one_real, rtol=0, atol=1e-12)
    assert torch.allclose(all_fake, one_fake, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"discriminator": ("patch", {"width": 4, "depth": 1})}, "PatchDiscriminator"),
        ({"discriminator": nn.Sequential(nn.Flatten(), nn.BatchNorm1d(192), nn.Linear(192, 1))}, "Sequential"),
        ({"loss": "relativistic-average"}, "RelativisticAverage"),
        ({"regularizers": ["dragan"]}, "dragan"),
        ({}, None),
    ],
)
def test_what_looks_at_a_whole_batch_is_named_once(
    arguments: dict[str, Any], named: str | None, make_accelerator: Callable[..., Any]
) -> None:
    accelerator = make_accelerator(gradient_accumulation_steps=2)
    options = {"discriminator": ("patch", {"width": 4, "depth": 1, "norm": "none"}), "loss": "hinge", **arguments}
    adversary = advloss.Adversary(**options, seed=0).prepare(accelerator)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(4):
            with accelerator.accumulate():
                adversary.discriminator_step(images(dtype=torch.float32), images(dtype=torch.float32))
    messages = [str(w.message) for w in caught]
    assert len(messages) == (named is not None)
    assert named is None or messages[0].startswith(f"{named}: what looks at a whole batch sees one micro-batch")
