"""Sampling: the timesteps that stock schedulers visit, what the network is told, and training's own arithmetic."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, FlowMatchEulerDiscreteScheduler, LCMScheduler
from distill_tools import CLASSES, tiny_unet
from torch import Tensor, nn

from advloss_distill import ClassConditional, Diffusion, digits, sample

STUDENT = {1: [999], 2: [999, 499], 3: [999, 749, 499], 4: [999, 749, 499, 249]}
LABELS = {"class_labels": torch.arange(CLASSES)}


class Recorder(nn.Module):
    """Answers like a network, and keeps the timesteps that it is given."""

    def __init__(self, answer: Any = None) -> None:
        super().__init__()
        self.answer = answer or torch.zeros_like
        self.timesteps: list[list[float]] = []

    def forward(self, noisy: Tensor, timesteps: Tensor, class_labels: Tensor) -> SimpleNamespace:
        assert len(timesteps) == len(noisy) == len(class_labels)
        self.timesteps.append(timesteps.tolist())
        return SimpleNamespace(sample=self.answer(noisy))


def student_denoiser() -> ClassConditional:
    return ClassConditional(Diffusion.from_scheduler(digits.student_scheduler()), clip=1.0)


@pytest.mark.parametrize("steps", STUDENT)
def test_the_students_scheduler_visits_the_trained_timesteps(steps: int, tmp_path: Path) -> None:
    digits.student_scheduler().save_pretrained(tmp_path)
    for scheduler in (digits.student_scheduler(), LCMScheduler.from_pretrained(tmp_path)):
        network = Recorder()
        sample(network, student_denoiser(), scheduler, torch.randn(10, 1, 8, 8), LABELS, steps)
        assert network.timesteps == [[t] * 10 for t in STUDENT[steps]]


@pytest.mark.parametrize("steps", [1, 2, 4, 50])
def test_the_teachers_scheduler_begins_at_pure_noise(steps: int, tmp_path: Path) -> None:
    digits.teacher_scheduler().save_pretrained(tmp_path)
    for scheduler in (digits.teacher_scheduler(), DDIMScheduler.from_pretrained(tmp_path)):
        network = Recorder()
        sample(network, student_denoiser(), scheduler, torch.randn(10, 1, 8, 8), LABELS, steps)
        assert network.timesteps == [[1000 - 1000 // steps * i - 1] * 10 for i in range(steps)]


def test_teacher_and_student_share_their_noise_levels() -> None:
    teacher, student = digits.teacher_scheduler(), digits.student_scheduler()
    assert torch.equal(teacher.alphas_cumprod, student.alphas_cumprod)
    assert teacher.config.prediction_type == student.config.prediction_type == "v_prediction"
    assert teacher.alphas_cumprod[-1] == 0


@pytest.mark.parametrize("steps", STUDENT)
def test_sampling_is_what_the_student_is_trained_for(steps: int) -> None:
    """diffusers' sampler against training's own x0 and noising, written out, with the same random numbers."""
    torch.manual_seed(0)
    network, denoiser = tiny_unet().eval(), student_denoiser()
    with torch.no_grad():  # an untrained UNet answers nearly 0
        network.conv_out.weight.mul_(20)
    noise = torch.randn(10, 1, 8, 8)
    generator = torch.Generator().manual_seed(1)
    found = sample(network, denoiser, digits.student_scheduler(), noise, LABELS, steps, generator)

    generator.manual_seed(1)
    path, noisy = STUDENT[steps], noise
    with torch.no_grad():
        for here, there in zip(path, [*path[1:], None]):
            t = torch.full((10,), here)
            output = network(noisy, t, class_labels=LABELS["class_labels"]).sample
            x0 = denoiser.diffusion.to_x0(output, noisy, t).clamp(-1, 1)
            if there is not None:
                fresh = torch.randn(noisy.shape, generator=generator)
                noisy = denoiser.diffusion.add_noise(x0, fresh, torch.full((10,), there))
    torch.testing.assert_close(found, x0, rtol=0, atol=1e-4)
    assert found.std() > 0.2
    torch.testing.assert_close(x0, denoiser.x0(network, noisy, t, LABELS), rtol=0, atol=1e-6)


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_flow_matching_schedulers_sample_too(shift: float) -> None:
    """A network that knows the only sample there is, in as many steps as wanted."""
    target = torch.rand(10, 1, 8, 8) - 0.5
    scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
    denoiser = ClassConditional(Diffusion.from_scheduler(scheduler))
    noise = torch.randn(10, 1, 8, 8)
    network = Recorder(lambda noisy: noise - target)
    found = sample(network, denoiser, scheduler, noise, LABELS, 3)
    torch.testing.assert_close(found, target, rtol=0, atol=1e-5)
    assert network.timesteps[0] == [1000.0] * 10
    assert len(network.timesteps) == 3


def test_timesteps_are_where_the_noise_is() -> None:
    """A network on an accelerator wants them there."""

    class AskedError(Exception):
        pass

    class Scheduler:
        def set_timesteps(self, steps: int, device: Any) -> None:
            assert torch.device(device).type == "meta"
            raise AskedError

    with pytest.raises(AskedError):
        sample(Recorder(), student_denoiser(), Scheduler(), torch.zeros(10, 1, 8, 8, device="meta"), LABELS, 1)


def test_x0_is_clipped_only_where_there_is_a_range() -> None:
    scheduler = DDIMScheduler(prediction_type="sample")
    network, t = Recorder(lambda noisy: 3 * noisy), torch.full((10,), 499)
    noisy = torch.randn(10, 1, 8, 8)
    free = ClassConditional(Diffusion.from_scheduler(scheduler)).x0(network, noisy, t, LABELS)
    clipped = ClassConditional(Diffusion.from_scheduler(scheduler), clip=1.0).x0(network, noisy, t, LABELS)
    assert torch.equal(free, 3 * noisy)
    assert torch.equal(clipped, (3 * noisy).clamp(-1, 1))
