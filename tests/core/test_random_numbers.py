"""The adversary's random numbers: streams of its own, one a player, that neither read nor move the script's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from core_tools import assert_same, copied, images, patch
from torch import Tensor

import advloss
from advloss._random import random_stream

AUGMENTATIONS = ["diffaugment", "instance-noise"]


def train(adversary: advloss.Adversary, calls: list[int], batches: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """Losses of the discriminator, with so many calls for the generator before each of its steps."""
    losses = []
    for count, (real, fake) in zip(calls, batches):
        for _ in range(count):
            adversary.generator_loss(fake, real)
        loss = adversary.discriminator_step(real, fake).loss
        assert loss is not None
        losses.append(loss)
    return losses


def batches(count: int = 4) -> list[tuple[Tensor, Tensor]]:
    return [(images(), images()) for _ in range(count)]


def make(discriminator: Any, seed: int | None = 5) -> advloss.Adversary:
    regularizers = {"gradient-penalty": {}, "dragan": {}, "r1": {"method": "finite-difference"}}
    return advloss.Adversary(copy.deepcopy(discriminator), "hinge", regularizers, AUGMENTATIONS, seed=seed)


def calls_of(adversary: advloss.Adversary) -> dict[str, Callable[[], object]]:
    real, fake, wrong = images(), images(), images(side=4)
    return {
        "generator_loss": lambda: adversary.generator_loss(fake.requires_grad_(), real).backward(),
        "discriminator_step": lambda: adversary.discriminator_step(real, fake),
        "discriminator_loss": lambda: adversary.discriminator_loss(real, fake).backward(),
        "state": lambda: adversary.load_state_dict(copied(adversary.state_dict())),
        "construction": lambda: make(adversary.discriminator),
        "error": lambda: fails(lambda: adversary.generator_loss(wrong)),
    }


def fails(call: Callable[[], object]) -> None:
    with pytest.raises(advloss.InputError):
        call()


@pytest.mark.parametrize("call", list(calls_of(make(patch()))))
def test_no_call_moves_the_scripts_generator(call: str) -> None:
    function = calls_of(make(patch()))[call]
    state = torch.get_rng_state()
    function()
    assert torch.equal(torch.get_rng_state(), state)


def test_one_seed_one_training_whatever_the_script_draws() -> None:
    discriminator, data = patch(), batches()
    one, other = make(discriminator), make(discriminator)
    first = train(one, [1] * 4, data)
    torch.manual_seed(99)
    torch.rand(7)
    assert_same(train(other, [1] * 4, data), first)
    assert_same(other.discriminator.state_dict(), one.discriminator.state_dict())
    assert_same(other.state_dict(), one.state_dict())


def test_another_seed_is_another_training() -> None:
    discriminator, data = patch(), batches(1)
    assert not torch.equal(train(make(discriminator), [0], data)[0], train(make(discriminator, 6), [0], data)[0])


def test_without_a_seed_the_global_generator_decides() -> None:
    discriminator, data, losses = patch(), batches(1), []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses += train(make(discriminator, None), [0], data)
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


def test_generators_calls_do_not_move_the_discriminators_stream() -> None:
    discriminator, data = patch(), batches()
    assert_same(train(make(discriminator), [3, 0, 1, 2], data), train(make(discriminator), [0, 0, 0, 0], data))


def test_every_call_draws_anew() -> None:
    adversary, fake = make(patch()), images()
    assert not torch.equal(adversary.generator_loss(fake), adversary.generator_loss(fake))


def test_real_and_fake_are_augmented_independently() -> None:
    """Within a step both sides have draws of their own: the same image twice gives different logits."""
    adversary, image = make(patch()), images()
    report = adversary.discriminator_step(image, image)
    assert not torch.equal(report.real_logits, report.fake_logits)


def test_streams_are_apart_by_every_part_of_their_key() -> None:
    def draw(*key: int | str) -> float:
        with random_stream(torch.device("cpu"), *key):
            return float(torch.rand(()))

    keys = [(0, 0, "generator", 0), (1, 0, "generator", 0), (0, 1, "generator", 0), (0, 0, "discriminator", 0)]
    keys += [(0, 0, "generator", 1), (0, 10, "generator", 0), (0, 1, "generator", 10)]
    assert len({draw(*key) for key in keys}) == len(keys)
    assert draw(*keys[0]) == draw(*keys[0])


def test_stream_ends_where_an_error_leaves_it() -> None:
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError), random_stream(torch.device("cpu"), 1):
        torch.rand(3) @ torch.rand(4)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_seed_also_decides_first_weights_and_leaves_the_script_alone() -> None:
    states = []
    for script_seed in (1, 2):
        torch.manual_seed(script_seed)
        before = torch.get_rng_state()
        states.append(advloss.Adversary(("patch", {"width": 4}), seed=5).discriminator.state_dict())
        assert torch.equal(torch.get_rng_state(), before)
    assert_same(*states)
