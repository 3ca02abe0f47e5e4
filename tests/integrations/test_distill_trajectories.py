"""The teacher's trajectories, against diffusers' own sampling loop, and a student that follows them."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DModel
from distill_tools import all_digits, tiny_unet
from pipeline_tools import tiny_family
from torch import Tensor

import advloss
from advloss_distill import (
    AlongNeighbours,
    ClassConditional,
    Diffusion,
    TeacherMade,
    Trajectories,
    digits,
    follow,
    merge_lora,
    roll_out,
    step_back,
)

TIMESTEPS = (999, 749, 499, 249)
LABELS = torch.arange(12) % 10


@pytest.fixture
def teacher() -> UNet2DModel:
    torch.manual_seed(0)
    return tiny_unet().eval()


@pytest.fixture
def denoiser() -> ClassConditional:
    return ClassConditional(Diffusion.from_scheduler(digits.teacher_scheduler()), clip=1.0)


def rolled(teacher: UNet2DModel, denoiser: ClassConditional, batch_size: int = 5) -> tuple[Tensor, Trajectories]:
    noise = torch.randn(12, 1, 8, 8)
    condition = {"class_labels": LABELS}
    return noise, roll_out(teacher, denoiser, digits.teacher_scheduler(), noise, condition, TIMESTEPS, 8, batch_size)


def test_trajectories_are_those_of_the_scheduler(teacher: UNet2DModel, denoiser: ClassConditional) -> None:
    noise, found = rolled(teacher, denoiser)
    scheduler = digits.teacher_scheduler()
    scheduler.set_timesteps(8)
    samples, passed = noise, {}
    for t in scheduler.timesteps:
        passed[int(t)] = samples
        with torch.no_grad():
            output = teacher(samples, t, class_labels=LABELS).sample
        samples = scheduler.step(output, t, samples).prev_sample
    assert len(found) == 12
    assert set(found.noisy) == set(TIMESTEPS)
    torch.testing.assert_close(found.samples, samples)
    for t in TIMESTEPS:
        torch.testing.assert_close(found.noisy[t], passed[t])
    assert torch.equal(found.condition["class_labels"], LABELS)
    assert not found.samples.requires_grad


def test_a_solver_that_misses_a_timestep_is_refused(teacher: UNet2DModel, denoiser: ClassConditional) -> None:
    with pytest.raises(advloss.OptionError, match=r"50 steps do not visit the timesteps \[249, 749\]"):
        roll_out(
            teacher,
            denoiser,
            digits.teacher_scheduler(),
            torch.randn(2, 1, 8, 8),
            {"class_labels": LABELS[:2]},
            TIMESTEPS,
            50,
        )


def test_trajectories_survive_a_file(teacher: UNet2DModel, denoiser: ClassConditional, tmp_path: Path) -> None:
    _, made = rolled(teacher, denoiser)
    made.save(tmp_path / "made.safetensors")
    found = Trajectories.load(tmp_path / "made.safetensors").to("cpu")
    assert torch.equal(found.samples, made.samples)
    assert found.noisy.keys() == made.noisy.keys()
    assert all(torch.equal(found.noisy[t], made.noisy[t]) for t in TIMESTEPS)
    assert torch.equal(found.condition["class_labels"], LABELS)
    with pytest.raises(advloss.StateError, match="missing"):
        Trajectories.load(tmp_path / "other.safetensors")


def test_a_student_learns_to_jump_to_the_end(teacher: UNet2DModel, denoiser: ClassConditional) -> None:
    _, made = rolled(teacher, denoiser)
    student, before = copy.deepcopy(teacher), copy.deepcopy(teacher.state_dict())
    losses: list[float] = []

    def distance() -> float:
        squares = []
        for t, noisy in made.noisy.items():
            with torch.no_grad():
                output = denoiser.output(student, noisy, torch.full((12,), t), made.condition)
            x0 = denoiser.diffusion.to_x0(output, noisy, torch.full((12,), t))
            squares.append((x0 - made.samples).square().mean())
        return float(torch.stack(squares).mean())

    first = distance()
    seen: list[int] = []
    follow(student, denoiser, made, 60, batch_size=48, lr=3e-3, on_progress=lambda i, loss: seen.append(i))
    assert seen == list(range(1, 61))
    assert distance() < 0.3 * first
    assert all(torch.equal(value, before[name]) for name, value in teacher.state_dict().items())
    left = distance()
    follow(student, denoiser, made, 1, batch_size=4000, on_progress=lambda i, loss: losses.append(float(loss)))
    assert losses == [pytest.approx(left, rel=0.1)]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_samples_is_the_teachers(share: float) -> None:
    data = all_digits()
    samples, labels = 5.0 + torch.arange(40.0).view(40, 1, 1, 1).expand(40, 1, 8, 8), torch.arange(40) % 10
    mixed = TeacherMade(data, samples, labels, share)
    condition = mixed.conditions(3000)
    real = mixed.real(condition)
    made = real[:, 0, 0, 0] >= 5
    assert made.double().mean() == pytest.approx(share, abs=0.04)
    assert torch.equal((real[made, 0, 0, 0] - 5).long() % 10, condition["class_labels"][made])
    rows = {tuple(image.flatten().tolist()): int(label) for image, label in zip(data.images, data.labels)}
    of_data = zip(real[~made], condition["class_labels"][~made])
    assert all(rows[tuple(image.flatten().tolist())] == int(label) for image, label in of_data)


def test_a_share_for_each_place_of_a_batch() -> None:
    data, shares = all_digits(), torch.tensor([0.0, 1.0, 0.5]).repeat_interleave(1000)
    mixed = TeacherMade(data, torch.full((10, 1, 8, 8), 5.0), torch.arange(10), shares)
    made = mixed.real(mixed.conditions(3000))[:, 0, 0, 0].view(3, 1000) == 5
    assert made.double().mean(1).tolist() == pytest.approx([0, 1, 0.5], abs=0.06)


def test_shares_and_classes_that_cannot_be_are_refused() -> None:
    data, samples = all_digits(), torch.zeros(3, 1, 8, 8)
    with pytest.raises(advloss.OptionError, match=r"share=1\.5"):
        TeacherMade(data, samples, torch.arange(3), 1.5)
    with pytest.raises(advloss.OptionError, match=r"classes \[1\]"):
        TeacherMade(data, samples, torch.tensor([0, 2, 2]), 0.5)
    with pytest.raises(advloss.OptionError, match=r"3 samples with labels of shape \(4,\)"):
        TeacherMade(data, samples, torch.arange(4), 0.5)
    with pytest.raises(advloss.OptionError, match="whole numbers from 0 on"):
        TeacherMade(data, samples, torch.arange(3) - 1, 0.5)
    with pytest.raises(advloss.OptionError, match="one for each place"):
        TeacherMade(data, samples, torch.arange(3), torch.full((8, 1), 0.5))
    mixed = TeacherMade(data, torch.zeros(10, 1, 8, 8), torch.arange(10), torch.full((5,), 0.5))
    with pytest.raises(advloss.OptionError, match="share has 5 places, and the batch 8"):
        mixed.real(mixed.conditions(8))


@pytest.mark.parametrize("reach", [0.0, 0.5])
def test_samples_move_along_lines_to_neighbours_of_their_class_both_ways(reach: float) -> None:
    data = all_digits()
    moved = AlongNeighbours(data, data.images, data.labels, reach=reach, neighbours=3)
    condition = moved.conditions(400)
    samples, labels = moved.real(condition).flatten(1).double(), condition["class_labels"]
    ways = set()
    for sample, label in zip(samples[:40], labels[:40]):
        images = data.images[data.labels == label].flatten(1).double()
        near = torch.cdist(images, images).fill_diagonal_(torch.inf).topk(3, largest=False).indices
        starts, lines = images[:, None], images[near] - images[:, None]
        along = ((sample - starts) * lines).sum(-1) / lines.square().sum(-1)
        off = (sample - starts - along[..., None] * lines).norm(dim=-1) + (along.abs() - reach).clamp(min=0)
        assert off.min() < 1e-5
        ways.add(bool(along.flatten()[off.argmin()] > 0))
    assert reach == 0 or ways == {False, True}
    spread, plain = samples.var(0).sum(), data.real(condition).flatten(1).double().var(0).sum()
    assert spread > 0.95 * plain  # no variety is lost


def test_neighbours_that_there_are_not_are_refused() -> None:
    data, samples, labels = all_digits(), torch.randn(6, 1, 8, 8), torch.tensor([0, 0, 0, 1, 1, 1])
    with pytest.raises(advloss.OptionError, match="the smallest class has 3 samples"):
        AlongNeighbours(data, samples, labels, neighbours=3)
    with pytest.raises(advloss.OptionError, match=r"reach=-0\.1"):
        AlongNeighbours(data, samples, labels, neighbours=2, reach=-0.1)
    with pytest.raises(advloss.OptionError, match="reach=inf"):
        AlongNeighbours(data, samples, labels, neighbours=2, reach=math.inf)
    with pytest.raises(advloss.OptionError, match="one sample alone"):
        AlongNeighbours(data, samples, torch.tensor([0, 0, 0, 0, 0, 1]), neighbours=1)
    with pytest.raises(advloss.OptionError, match=r"classes \[1\]"):
        AlongNeighbours(data, samples, 2 * labels, neighbours=1)
    with pytest.raises(advloss.OptionError, match="uint8"):
        AlongNeighbours(data, samples.byte(), labels, neighbours=1)


def test_a_step_back_is_on_the_line_to_the_start() -> None:
    student, start = tiny_unet(), tiny_unet().requires_grad_(False)
    with torch.no_grad():
        for weight in start.parameters():
            weight.add_(1.0)
    before = copy.deepcopy(student)
    step_back(student, start, 0.25)
    for moved, own, there in zip(student.parameters(), before.parameters(), start.parameters(), strict=True):
        torch.testing.assert_close(moved, 0.75 * own + 0.25 * there)
        assert moved.requires_grad


@pytest.mark.parametrize("share", [-0.1, 1.1, math.nan])
def test_a_step_back_that_cannot_be_is_refused(share: float) -> None:
    with pytest.raises(advloss.OptionError, match="from 0 to 1"):
        step_back(tiny_unet(), tiny_unet(), share)
    with pytest.raises(advloss.OptionError, match="as it was built"):
        step_back(tiny_unet(), torch.nn.Linear(2, 2), 0.5)


def test_adapters_are_stepped_back_when_they_are_merged() -> None:
    pipeline, family = tiny_family("sana")
    student, start = (family.adapted(pipeline.transformer, rank=2) for _ in range(2))
    with torch.no_grad():
        for name, weight in student.named_parameters():
            if "lora_" in name:
                weight.normal_()
    before = copy.deepcopy(student.state_dict())
    for other in (start, copy.deepcopy(student), pipeline.transformer):
        with pytest.raises(advloss.OptionError, match=r"products of two matrices.* merge both networks first"):
            step_back(student, other, 0.25)
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())
    end = copy.deepcopy(merge_lora(student))
    step_back(student, merge_lora(start), 0.25)
    for moved, own, there in zip(
        student.parameters(), end.parameters(), pipeline.transformer.parameters(), strict=True
    ):
        torch.testing.assert_close(moved, 0.75 * own + 0.25 * there)
