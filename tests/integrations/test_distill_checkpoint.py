"""Checkpoints: going on bit by bit, without the teacher, and safe from interruptions."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from distill_tools import COUNTS, differences, fresh_accelerator, reset_accelerate, tiny_distillation, weights
from safetensors.torch import load_file

from advloss import Checkpoints, StateError, load_state
from advloss_distill import Distillation
from advloss_distill._digest import weights_digest


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    yield from fresh_accelerator()


def everything(distillation: Distillation) -> dict[str, Any]:
    """All that the future depends on, copied."""
    state = {
        "student": weights(distillation.student),
        "average": [value.clone() for value in distillation.ema.shadow_params],
        "optimizer": distillation.optimizer.state_dict(),
        "rate": distillation.scheduler.state_dict(),
        "adversary": distillation.adversary.state_dict(),
        "simulation": distillation.simulation.state_dict(),
        "random": [torch.get_rng_state(), *np.random.get_state()[1:3], random.getstate()[1][:5]],
        "iteration": distillation.iteration,
    }
    state["random"][1] = state["random"][1].tolist()
    return copy.deepcopy(state)


def test_a_resumed_run_is_the_uninterrupted_one(accelerator: Accelerator, tmp_path: Path) -> None:
    whole = tiny_distillation(accelerator, distillation_weight=0.5)
    whole.run(3)
    whole.save(tmp_path)
    whole.run(6)
    expected = everything(whole)

    reset_accelerate()
    resumed = tiny_distillation(Accelerator(cpu=True), distillation_weight=0.5)
    with torch.no_grad():  # nothing of the right values is there but in the file
        for parameter in resumed.student.parameters():
            parameter.add_(1)
    set_seed(5)
    resumed.load(tmp_path)
    assert resumed.iteration == 3
    resumed.run(6)
    assert not differences(everything(resumed), expected)
    for mine, theirs in zip(resumed.adversary.turns, whole.adversary.turns[3:], strict=True):
        assert torch.equal(mine.real, theirs.real)
        assert torch.equal(mine.fake, theirs.fake)


def test_the_teacher_is_in_no_file(accelerator: Accelerator, tmp_path: Path) -> None:
    distillation = tiny_distillation(accelerator, change=lambda t: t.conv_in.weight.data.fill_(0.123))
    distillation.run(2)
    distillation.save(tmp_path)
    (folder,) = tmp_path.iterdir()
    assert {path.name for path in folder.iterdir()} == {"manifest.json", "process_0.safetensors", "state.safetensors"}
    for path in folder.glob("*.safetensors"):
        for name, tensor in load_file(path).items():
            assert not (tensor == 0.123).any(), f"{path.name}: {name}"
    saved = load_state(folder / "state.safetensors")["parts"]
    assert not differences(saved["student"], dict(distillation.student.state_dict()))
    assert len(saved["optimizer"]["state"]) == len(list(distillation.student.parameters()))


def test_another_teacher_is_refused(accelerator: Accelerator, tmp_path: Path) -> None:
    distillation = tiny_distillation(accelerator)
    distillation.begin(tmp_path)
    distillation.run(1, checkpoints=tmp_path)
    reset_accelerate()
    other = tiny_distillation(Accelerator(cpu=True))
    other.begin(tmp_path, resume=True)
    known = weights_digest(other.teacher)
    assert known != weights_digest(copy.deepcopy(other.teacher).bfloat16())
    with torch.no_grad():
        list(other.teacher.parameters())[-1].add_(1e-6)
    with pytest.raises(StateError, match=f"the digest of the teacher's weights was {known}, and is "):
        other.begin(tmp_path, resume=True)


def test_one_complete_checkpoint_is_kept(accelerator: Accelerator, tmp_path: Path) -> None:
    distillation = tiny_distillation(accelerator)
    for iterations in (1, 2):
        distillation.run(iterations)
        distillation.save(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == [f"step-{iterations:08d}"]
    distillation.save(tmp_path)  # the same step again
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000002"]


def test_an_interrupted_save_harms_nothing(
    accelerator: Accelerator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    distillation = tiny_distillation(accelerator)
    distillation.run(1)
    distillation.save(tmp_path)
    state = everything(distillation)
    distillation.run(2)
    with monkeypatch.context() as patch:

        def broken(*_: Any) -> None:
            raise KeyboardInterrupt

        patch.setattr("advloss._training_state.save_state", broken)
        with pytest.raises(KeyboardInterrupt):
            distillation.save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"step-00000001"}
    distillation.load(tmp_path)
    assert not differences(everything(distillation), state)
    (tmp_path / ".partial").mkdir()  # as a kill leaves it
    (tmp_path / ".partial" / "left over").touch()
    distillation.run(3)
    distillation.save(tmp_path)
    (folder,) = tmp_path.iterdir()
    assert folder.name == "step-00000003"
    assert not (folder / "left over").exists()


def test_the_newest_checkpoint_counts(accelerator: Accelerator, tmp_path: Path) -> None:
    """Interrupted between the new one and the removal of the old one, both are there."""
    distillation = tiny_distillation(accelerator)
    for iterations in (1, 2):
        distillation.run(iterations)
        with Checkpoints(tmp_path, keep=2).write(iterations) as folder:
            distillation._state().save(folder, iteration=iterations)
    assert len(list(tmp_path.iterdir())) == 2
    distillation.iteration = 0
    distillation.load(tmp_path)
    assert distillation.iteration == 2


def test_nothing_to_load_is_said(accelerator: Accelerator, tmp_path: Path) -> None:
    distillation = tiny_distillation(accelerator)
    (tmp_path / ".partial").mkdir()
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(StateError, match=r"there is no checkpoint in .*start without resuming"):
            distillation.load(folder)


def test_a_checkpoint_without_the_rates_schedule_is_refused(accelerator: Accelerator, tmp_path: Path) -> None:
    distillation = tiny_distillation(accelerator)
    distillation.run(1)
    distillation.save(tmp_path)
    distillation.scheduler = None
    with pytest.raises(StateError, match=r"only one of this run and .* has: scheduler"):
        distillation.load(tmp_path)


def test_a_simulation_with_other_counts_is_refused_before_anything_changes(
    accelerator: Accelerator, tmp_path: Path
) -> None:
    distillation = tiny_distillation(accelerator)
    distillation.run(1)
    distillation.save(tmp_path)
    reset_accelerate()
    other = tiny_distillation(Accelerator(cpu=True), counts={**COUNTS, (999, 749, 499): 1})
    other.run(2)
    before = everything(other)
    with pytest.raises(StateError, match=r"simulation does not fit this run: .*samples at later steps"):
        other.load(tmp_path)
    assert not differences(everything(other), before)
