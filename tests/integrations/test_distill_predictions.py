"""Students of every prediction type take a step."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from diffusers import DDPMScheduler, FlowMatchEulerDiscreteScheduler
from distill_tools import differences, fresh_accelerator, tiny_distillation, weights, zero_snr_scheduler

FLOW_COUNTS = {(1000,): 6, (1000, 500): 3, (1000, 750): 4, (1000, 750, 500): 2}
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "v_prediction": (zero_snr_scheduler, {}),
    "epsilon": (DDPMScheduler, {}),
    "sample": (lambda: DDPMScheduler(prediction_type="sample", rescale_betas_zero_snr=True), {}),
    "flow": (
        lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
        {"paths": ((1000,), (1000, 500), (1000, 750, 500)), "counts": FLOW_COUNTS},
    ),
}


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    yield from fresh_accelerator()


@pytest.mark.parametrize("prediction", CASES)
def test_a_student_of_this_prediction_takes_steps(prediction: str, accelerator: Accelerator) -> None:
    scheduler, options = CASES[prediction]
    distillation = tiny_distillation(accelerator, scheduler(), distillation_weight=1.0, **options)
    assert distillation.denoiser.diffusion.prediction == prediction
    before = weights(distillation.student)
    seen: list[dict[str, float]] = []
    distillation.run(2, lambda progress: seen.append(progress.as_dict()))
    assert torch.tensor([list(numbers.values()) for numbers in seen[-1:]]).isfinite().all()
    changed = differences(before, distillation.student.state_dict())
    assert len(changed) > len(before) // 2
    assert all(value.isfinite().all() for value in distillation.student.state_dict().values())
