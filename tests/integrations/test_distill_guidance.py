"""The teacher's guidance, and students that are told it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from method_tools import tiny_setup
from pipeline_tools import FAMILIES, tiny_conditions, tiny_family

from advloss_distill import (
    Guidance,
)


@pytest.mark.parametrize("name", ["stable-diffusion", "stable-diffusion-xl", "stable-diffusion-3", "sana", "dit"])
def test_guidance_is_that_of_the_networks_outputs(name: str) -> None:
    """As pipelines guide: outputs are extrapolated, and then read."""
    setup = tiny_setup(name)
    family, pipeline = setup.family, setup.pipeline
    nothing = family.nothing(pipeline)
    condition, noisy = tiny_conditions(family, 2), torch.randn(2, *family.shape)
    timesteps = torch.tensor([700, 300])
    guidance = Guidance(3.5, nothing)
    with torch.no_grad():
        outputs = [
            family.output(
                setup.teacher,
                noisy,
                timesteps,
                {n: v[:1].expand(2, *v.shape[1:]) for n, v in one.items()} if one is nothing else one,
            )
            for one in (condition, nothing)
        ]
        expected = family.diffusion.to_x0(outputs[1] + 3.5 * (outputs[0] - outputs[1]), noisy, timesteps)
        found = guidance.x0(family, setup.teacher, noisy, timesteps, condition)
        told = guidance.x0(family, setup.teacher, noisy, timesteps, {**condition, "guidance": torch.tensor([1.0, 3.5])})
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(told[1], expected[1], rtol=1e-3, atol=1e-3)
    plain = family.x0(setup.teacher, noisy, timesteps, condition)
    torch.testing.assert_close(told[0], plain[0], rtol=1e-3, atol=1e-3)


def test_no_class_is_the_class_after_the_last() -> None:
    setup = tiny_setup("dit")
    assert setup.family.nothing(setup.pipeline)["class_labels"].tolist() == [1000]


@pytest.mark.parametrize("name", ["stable-diffusion", "stable-diffusion-xl"])
def test_a_guided_student_begins_as_its_teacher_and_is_told_as_the_pipeline_tells_it(name: str) -> None:
    pipeline, family = tiny_family(name)
    student: Any = family.guided_student(pipeline.unet)
    assert student.config.time_cond_proj_dim == 256
    assert all(p.requires_grad and not p.is_meta for p in student.parameters())
    condition, noisy, t = tiny_conditions(family, 2), torch.randn(2, *family.shape), torch.tensor([700, 300])
    guided = {**condition, "guidance": torch.tensor([4.0, 7.5])}
    with torch.no_grad():
        teacher = family.x0(pipeline.unet, noisy, t, condition)
        torch.testing.assert_close(family.x0(pipeline.unet, noisy, t, guided), teacher)  # which is told nothing of it
        torch.testing.assert_close(family.x0(student, noisy, t, guided), teacher)
        student.time_embedding.cond_proj.weight.normal_()
        assert not torch.allclose(family.x0(student, noisy, t, guided), teacher)

    calls: list[dict[str, Any]] = []
    forward = type(student).forward
    student.forward = lambda *a, **k: calls.append(k) or forward(student, *a, **k)
    family.x0(student, noisy, t, {**condition, "guidance": torch.full((2,), 7.5)})
    pipeline.unet = student
    call = {**FAMILIES[name].call, "num_inference_steps": 1, "guidance_scale": 7.5, "output_type": "latent"}
    pipeline(**family.arguments(condition), **call)
    ours, theirs = (call["timestep_cond"] for call in calls[:2])
    torch.testing.assert_close(ours, theirs.expand(2, -1), rtol=1e-3, atol=1e-3)
