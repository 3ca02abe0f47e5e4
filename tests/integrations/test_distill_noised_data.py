"""Noised real samples as the student's inputs: which samples, at which timesteps, and a step with them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from distill_tools import Stripes, fresh_accelerator, tiny_distillation, zero_snr_scheduler

from advloss import OptionError
from advloss_distill import Diffusion, NoisedData

TIMESTEPS = (999, 749, 499, 249)


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    yield from fresh_accelerator()


def noised(count: int = 10) -> NoisedData:
    return NoisedData(Diffusion.from_scheduler(zero_snr_scheduler()), TIMESTEPS, count, Stripes())


def test_inputs_are_noised_real_samples_of_their_labels() -> None:
    made, noise = noised(), torch.randn(10, 1, 8, 8)
    condition = {"class_labels": torch.arange(10)}
    noisy, same = made.inputs(noise, condition)
    assert same is condition
    scheduler = zero_snr_scheduler()
    signal = scheduler.alphas_cumprod[made.timesteps].view(-1, 1, 1, 1)
    without_noise = noisy - (1 - signal).sqrt() * noise
    level = signal.sqrt() * Stripes.level(condition["class_labels"])
    assert ((without_noise - level).abs() <= signal.sqrt() * Stripes.TEXTURE + 1e-5).all()
    assert torch.equal(noisy[made.timesteps == 999], noise[made.timesteps == 999])


def test_timesteps_come_equally_often() -> None:
    made = noised(12)
    assert made.fresh == 12
    assert torch.bincount(made.steps).tolist() == [3, 3, 3, 3]
    assert made.timesteps.tolist() == [TIMESTEPS[step] for step in made.steps]


@pytest.mark.parametrize(("timesteps", "count"), [((999, 499), 1), ((), 4)])
def test_a_batch_without_a_sample_for_each_timestep_is_refused(timesteps: tuple[int, ...], count: int) -> None:
    with pytest.raises(OptionError, match="at least one for each"):
        NoisedData(Diffusion.from_scheduler(zero_snr_scheduler()), timesteps, count, Stripes())


def test_a_student_trains_on_them_and_resumes(accelerator: Accelerator, tmp_path: Path) -> None:
    distillation = tiny_distillation(accelerator)
    distillation.simulation = noised()
    distillation.run(2)
    distillation.save(tmp_path)
    distillation.run(3)
    expected = distillation.adversary.turns[-1]
    distillation.load(tmp_path)
    distillation.run(3)
    assert torch.equal(distillation.adversary.turns[-1].fake, expected.fake)
    assert torch.equal(distillation.adversary.turns[-1].real, expected.real)
    assert expected.condition["time"].tolist() == noised().steps.tolist()


@pytest.mark.parametrize("timesteps", [(1000,), (999, -1)])
def test_timesteps_outside_of_the_schedule_are_refused(timesteps: tuple[int, ...]) -> None:
    with pytest.raises(OptionError, match="give some from 0 to 999"):
        NoisedData(Diffusion.from_scheduler(zero_snr_scheduler()), timesteps, 4, Stripes())
