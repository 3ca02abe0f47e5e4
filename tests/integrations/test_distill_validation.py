"""Pictures of student and teacher on fixed noise."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from distill_tools import differences, weights
from PIL import Image
from pipeline_tools import FAMILIES, tiny_conditions, tiny_family
from torch import Tensor, nn

from advloss_distill import Family, Validation, sampling_paths, student_scheduler

SEED, STEPS = 7, (1, 2, 4)


def validation_of(name: str, count: int = 2, **options: Any) -> tuple[Validation, Family, Any]:
    pipeline, family = tiny_family(name)
    settings = {"steps": STEPS, "teacher_steps": 3, "seed": SEED, **options}
    validation = Validation(family, pipeline, tiny_conditions(family, count), student_scheduler(family), **settings)
    return validation, family, pipeline


def as_trained(validation: Validation, family: Family, student: nn.Module, path: Any) -> Tensor:
    """Samples by training's own parts."""
    generator = torch.Generator().manual_seed(SEED)
    noisy = torch.randn(2, *family.shape, generator=generator)
    for i, timestep in enumerate(path):
        x0 = family.x0(student, noisy, torch.tensor([timestep]).expand(2), validation.condition)
        if i + 1 < len(path):
            noise = torch.randn(x0.shape, generator=generator)
            noisy = family.diffusion.add_noise(x0, noise, torch.tensor([path[i + 1]]).expand(2))
    return x0


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_the_student_is_seen_as_it_was_trained(name: str) -> None:
    validation, family, pipeline = validation_of(name)
    student = family.student(pipeline.components[family.part])
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.mul_(1.01)
    before, state = weights(student), torch.get_rng_state()
    made = validation(student)
    assert list(made) == ["teacher, 3 steps", "student, 1 step", "student, 2 steps", "student, 4 steps"]
    assert torch.equal(state, torch.get_rng_state())
    assert student.training
    assert not differences(before, weights(student))
    side = FAMILIES[name].side
    for images in made.values():
        assert images.shape == (2, 3, side, side)
        assert images.min() >= -1
        assert images.max() <= 1
    student.eval()
    with torch.no_grad():
        for steps, path in zip(STEPS, sampling_paths(student_scheduler(family), STEPS), strict=True):
            latents = as_trained(validation, family, student, path)
            expected = family.to_images(pipeline.vae, latents).clamp(-1, 1)
            torch.testing.assert_close(list(made.values())[STEPS.index(steps) + 1], expected, rtol=1e-2, atol=1e-3)
    assert not differences(made, validation(student))


def test_a_student_is_told_its_guidance() -> None:
    made = []
    for guidance in (None, 3.0, 8.0):
        validation, family, pipeline = validation_of("stable-diffusion", student_guidance=guidance)
        torch.manual_seed(2)
        student: Any = family.guided_student(pipeline.unet)
        with torch.no_grad():
            student.time_embedding.cond_proj.weight.normal_(std=0.3)
        made.append(list(validation(student).values()))
    assert torch.equal(made[1][0], made[2][0])  # the teacher
    call = {**FAMILIES["stable-diffusion"].call, "num_inference_steps": 1, "guidance_scale": 8, "output_type": "pt"}
    pipeline.register_modules(unet=student.eval(), scheduler=student_scheduler(family))
    images = pipeline(**family.arguments(validation.condition), **call, generator=torch.manual_seed(SEED)).images
    torch.testing.assert_close(made[2][1] / 2 + 0.5, images, rtol=1e-2, atol=1e-3)
    for other in made[:2]:
        assert not torch.allclose(other[1] / 2 + 0.5, images, rtol=1e-2, atol=1e-3)


def test_the_teacher_is_seen_with_guidance() -> None:
    teachers = [validation_of("dit", guidance_scale=scale)[0].teacher["teacher, 3 steps"] for scale in (1.0, 6.0, 6.0)]
    assert not torch.allclose(teachers[0], teachers[1], atol=1e-3)
    assert torch.equal(teachers[1], teachers[2])


def test_the_teacher_is_what_its_pipeline_makes() -> None:
    validation, family, pipeline = validation_of("stable-diffusion")
    call = {**FAMILIES["stable-diffusion"].call, "num_inference_steps": 3, "guidance_scale": 1, "output_type": "pt"}
    told = family.arguments(validation.condition)
    images = pipeline(**told, **call, generator=torch.Generator().manual_seed(SEED)).images
    torch.testing.assert_close(validation.teacher["teacher, 3 steps"] / 2 + 0.5, images, rtol=1e-3, atol=1e-4)


def test_a_picture_is_written_whole_and_shown_to_trackers(tmp_path: Path) -> None:
    validation, _, pipeline = validation_of("stable-diffusion", count=3)
    shown: list[Any] = []
    tracker = SimpleNamespace(name="tensorboard", log_images=lambda images, **options: shown.append((images, options)))
    path = tmp_path / "validation" / "000002.png"
    validation.save(path, pipeline.unet, trackers=[tracker, SimpleNamespace(name="numbers only")], iteration=2)
    assert [file.name for file in path.parent.iterdir()] == ["000002.png"]
    with Image.open(path) as picture:
        assert picture.width == 4 * 96
        assert picture.height == 3 * 96 + 24
        assert len(picture.convert("RGB").getcolors(2**24)) > 1000
    ((images, options),) = shown
    assert images["validation"].shape == (1, 3 * 96 + 24, 4 * 96, 3)
    assert options == {"step": 2, "dataformats": "NHWC"}
