"""Accelerate's checkpoints carry an adversary, in scripts as they are."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from core_tools import assert_same, copied, images, patch
from torch import Tensor, nn

import advloss
from advloss._runtime import Runtime
from advloss._update import _mean_over_ranks

Make = Callable[..., Any]


def make_adversary(seed: int = 0) -> advloss.Adversary:
    torch.manual_seed(seed)
    return advloss.Adversary(patch(norm="spectral"), "hinge", ["lecam"], ["diffaugment"])


class Script:
    """A training script: a model, its optimizer, an adversary, prepared in one order or the other."""

    def __init__(self, accelerator: Any, seed: int = 0, first: str = "model") -> None:
        torch.manual_seed(seed)
        self.accelerator = accelerator
        self.model: Any = nn.Conv2d(3, 3, 1).double()
        self.optimizer: Any = torch.optim.Adam(self.model.parameters(), 1e-3)
        self.adversary = make_adversary(seed)
        if first == "adversary":
            self.adversary.prepare(accelerator)
        self.model, self.optimizer = accelerator.prepare(self.model, self.optimizer)
        if first == "model":
            self.adversary.prepare(accelerator)

    def train(self, micro_steps: range) -> None:
        for micro in micro_steps:
            torch.manual_seed(500 + micro)
            batch = images()
            with self.accelerator.accumulate(self.model):
                fake = self.model(batch)
                loss = (fake - batch).square().mean() + self.adversary.generator_loss(fake, real=batch)
                self.accelerator.backward(loss)
                self.optimizer.step()
                self.optimizer.zero_grad()
                self.adversary.discriminator_step(real=batch, fake=fake)

    def state(self) -> dict[str, Any]:
        return copied({"adversary": self.adversary.state_dict(), "model": self.model.state_dict()})


@pytest.mark.parametrize("first", ["model", "adversary"])
@pytest.mark.parametrize("steps", [1, 2], ids=["whole steps", "accumulating"])
def test_resumed_training_is_bitwise_the_same(first: str, steps: int, make_accelerator: Make, tmp_path: Path) -> None:
    """Six micro-steps, or three, a checkpoint, and three: with two a step, in the middle of an accumulation."""
    straight = Script(make_accelerator(gradient_accumulation_steps=steps))
    straight.train(range(6))

    begun = Script(make_accelerator(gradient_accumulation_steps=steps), first=first)
    begun.train(range(3))
    if steps == 1:  # a model's half-gathered gradient is in no checkpoint of Accelerate's; the adversary's is
        begun.accelerator.save_state(tmp_path / "state")
        resumed = Script(make_accelerator(gradient_accumulation_steps=steps), seed=8, first=first)
        resumed.accelerator.load_state(tmp_path / "state")
        assert_same(resumed.state(), begun.state())
        resumed.train(range(3, 6))
        assert_same(resumed.state(), straight.state())
    else:
        begun.accelerator.save_state(tmp_path / "state")
        resumed = Script(make_accelerator(gradient_accumulation_steps=steps), seed=8, first=first)
        resumed.accelerator.load_state(tmp_path / "state")
        assert resumed.accelerator.step == 3
        assert resumed.adversary.state_dict()["update"]["count"] == 1
        assert_same(resumed.state(), begun.state())


def test_adversary_is_none_of_the_models(make_accelerator: Make, tmp_path: Path) -> None:
    """Hooks as diffusers' scripts have them: each model is "unet", each weight is popped."""
    script = Script(make_accelerator(), first="adversary")
    accelerator, saved, loaded = script.accelerator, [], []

    def save_model_hook(models: list[nn.Module], weights: list[Any], output_dir: str) -> None:
        for model in models:
            assert isinstance(accelerator.unwrap_model(model), nn.Conv2d)
            torch.save(model.state_dict(), Path(output_dir) / "unet")
            saved.append(model)
            weights.pop()

    def load_model_hook(models: list[nn.Module], input_dir: str) -> None:
        for _ in range(len(models)):
            model = models.pop()
            model.load_state_dict(torch.load(Path(input_dir) / "unet", weights_only=True))
            loaded.append(model)

    accelerator.register_save_state_pre_hook(save_model_hook)
    accelerator.register_load_state_pre_hook(load_model_hook)
    script.train(range(2))
    state = script.state()
    accelerator.save_state(tmp_path / "state")
    script.train(range(2, 4))
    accelerator.load_state(tmp_path / "state")

    assert saved == loaded == [script.model]
    assert_same(script.state(), state)
    assert (tmp_path / "state" / "adversary.safetensors").is_file()


def test_two_adversaries_have_a_file_each(make_accelerator: Make, tmp_path: Path) -> None:
    accelerator = make_accelerator()
    both = [make_adversary(seed).prepare(accelerator) for seed in (1, 2)]
    for adversary in both:
        adversary.discriminator_step(images(), images())
    states = [copied(a.state_dict()) for a in both]
    accelerator.save_state(tmp_path / "state")
    assert {p.name for p in (tmp_path / "state").glob("adversary*")} == {
        "adversary.safetensors",
        "adversary_1.safetensors",
    }
    for adversary in both:
        adversary.discriminator_step(images(), images())
    accelerator.load_state(tmp_path / "state")
    assert_same([a.state_dict() for a in both], states)


def test_checkpoint_without_its_file_is_refused_and_nothing_changes(make_accelerator: Make, tmp_path: Path) -> None:
    script = Script(make_accelerator())
    script.train(range(2))
    script.accelerator.save_state(tmp_path / "state")
    script.train(range(2, 3))
    state = script.state()
    (tmp_path / "state" / "adversary.safetensors").unlink()
    with pytest.raises(advloss.StateError, match="saved without the adversary"):
        script.accelerator.load_state(tmp_path / "state")
    assert_same(script.state(), state)


@pytest.mark.parametrize("damage", [lambda b: b[:-9], lambda b: b[:-9] + bytes([b[-9] ^ 16]) + b[-8:]])
def test_damaged_checkpoint_is_refused_and_nothing_changes(
    damage: Callable[[bytes], bytes], make_accelerator: Make, tmp_path: Path
) -> None:
    script = Script(make_accelerator())
    script.train(range(2))
    script.accelerator.save_state(tmp_path / "state")
    script.train(range(2, 3))
    state = script.state()
    file = tmp_path / "state" / "adversary.safetensors"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(advloss.StateError, match="damaged"):
        script.accelerator.load_state(tmp_path / "state")
    assert_same(script.state(), state)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        *itertools.product(
            ["adversary.safetensors", "adversary_1.safetensors"], ["truncated", "missing", "of another adversary"]
        ),
        ("model.safetensors", "truncated"),
    ],
)
def test_all_adversaries_are_loaded_or_none(damage: str, file: str, make_accelerator: Make, tmp_path: Path) -> None:
    script = Script(make_accelerator())
    second = make_adversary(3).prepare(script.accelerator)
    script.train(range(2))
    script.accelerator.save_state(tmp_path / "state")
    script.train(range(2, 3))
    second.discriminator_step(images(), images())
    before = copied([script.adversary.state_dict(), second.state_dict()])
    path = tmp_path / "state" / file
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-9])
    elif damage == "missing":
        path.unlink()
    else:
        advloss.save_state(advloss.Adversary(patch(width=8)).state_dict(), path)
    with pytest.raises(advloss.StateError):
        script.accelerator.load_state(tmp_path / "state")
    assert_same([script.adversary.state_dict(), second.state_dict()], before)


def test_prepared_twice_it_is_saved_once(make_accelerator: Make, tmp_path: Path) -> None:
    accelerator = make_accelerator()
    adversary = make_adversary().prepare(accelerator).prepare(accelerator)
    accelerator.save_state(tmp_path / "state")
    assert [path.name for path in (tmp_path / "state").glob("adversary*")] == ["adversary.safetensors"]
    assert adversary.step == 0


def test_an_adversary_that_was_dropped_is_saved_no_more_and_one_too_many_is_refused(
    make_accelerator: Make, tmp_path: Path
) -> None:
    """A notebook's cell that is run twice prepares a second one."""
    accelerator = make_accelerator()
    adversary = make_adversary(1).prepare(accelerator)
    adversary = make_adversary(2).prepare(accelerator)
    accelerator.save_state(tmp_path / "one")
    assert [path.name for path in (tmp_path / "one").glob("adversary*")] == ["adversary.safetensors"]
    saved = advloss.load_state(tmp_path / "one" / "adversary.safetensors")
    assert_same(saved["discriminator"], adversary.discriminator.state_dict())

    still_there = make_adversary(3).prepare(accelerator)
    accelerator.save_state(tmp_path / "two")
    fresh = make_accelerator()
    alone = make_adversary(4).prepare(fresh)
    before = copied(alone.state_dict())
    with pytest.raises(advloss.StateError, match="holds 2 adversaries, this script has prepared 1"):
        fresh.load_state(tmp_path / "two")
    assert_same(alone.state_dict(), before)
    assert still_there.step == 0


def test_a_damaged_file_of_the_scaler_is_found_before_anything_changes(make_accelerator: Make, tmp_path: Path) -> None:
    script = Script(make_accelerator())
    script.accelerator.save_state(tmp_path / "state")
    (tmp_path / "state" / "scaler.pt").write_bytes(b"nonsense")
    script.train(range(2))
    state = script.state()
    with pytest.raises(advloss.StateError, match=r"scaler\.pt is damaged"):
        script.accelerator.load_state(tmp_path / "state")
    assert_same(script.state(), state)


def test_clipping_and_zeroing_of_the_script_do_not_reach_the_adversary(make_accelerator: Make) -> None:
    """`accelerator.clip_grad_norm_` and `optimizer.zero_grad` act on the script's own parameters."""
    script = Script(make_accelerator())
    batch = images()
    fake = script.model(batch)
    script.accelerator.backward(script.adversary.generator_loss(fake))
    script.accelerator.clip_grad_norm_(script.model.parameters(), 1.0)
    assert all(p.grad is None for p in script.adversary.discriminator.parameters())
    script.optimizer.step()
    script.optimizer.zero_grad()
    assert not script.adversary.discriminator_step(batch, fake).skipped
    assert all(p.grad is None for p in script.adversary.discriminator.parameters())


def test_prepare_returns_the_adversary_and_keeps_its_tensors(make_accelerator: Make) -> None:
    adversary = make_adversary()
    parameters = list(adversary.discriminator.parameters())
    assert adversary.prepare(make_accelerator()) is adversary
    assert all(p is q for p, q in zip(adversary.discriminator.parameters(), parameters))
    assert isinstance(adversary.generator_loss(images()), Tensor)


@pytest.mark.parametrize("device", ["cpu", torch.device("cpu")], ids=str)
def test_a_device_is_nothing_to_prepare_for(device: Any) -> None:
    with pytest.raises(advloss.OptionError, match="a device goes to `to`"):
        make_adversary().prepare(device)


class Recording(Runtime):
    """Keeps the dtypes of its reductions."""

    world = 2

    def __init__(self) -> None:
        self.reduced: list[torch.dtype] = []

    def mean(self, flat: Tensor) -> Tensor:
        self.reduced.append(flat.dtype)
        return flat


DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]


@pytest.mark.parametrize("dtypes", list(itertools.permutations(DTYPES)), ids=str)
def test_every_process_reduces_dtypes_in_the_same_order(dtypes: tuple[torch.dtype, ...]) -> None:
    """A set's order would differ from process to process: the wrong tensors would meet, or the processes hang."""
    runtime, tensors = Recording(), [torch.full((2,), float(i), dtype=dtype) for i, dtype in enumerate(dtypes * 2)]
    means = _mean_over_ranks(runtime, tensors)
    assert runtime.reduced == list(dtypes)
    assert all(torch.equal(mean, tensor) for mean, tensor in zip(means, tensors))
