"""Every method in half precision: autocast for student and discriminator, full weights, a scaler for float16.

Accelerate gives the CPU no float16: its switch and its scaler are set here by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from distill_tools import differences, reset_accelerate, weights
from method_tools import tiny_method_run, tiny_setup

from advloss_distill import Distillation
from advloss_distill.methods import METHODS

PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


@pytest.fixture(autouse=True)
def _reset() -> Iterator[None]:
    reset_accelerate()
    yield
    reset_accelerate()


def half(precision: str, scale: float = 2.0**10) -> Accelerator:
    reset_accelerate()
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    if precision == "fp16":
        accelerator.native_amp, accelerator.scaler = True, torch.amp.GradScaler("cpu", init_scale=scale)
    return accelerator


def run_of(method: str, accelerator: Accelerator) -> Distillation:
    torch.manual_seed(0)
    distillation, _ = tiny_method_run(method, tiny_setup("stable-diffusion"), accelerator)
    if accelerator.scaler is not None and distillation.adversary is not None:  # as the student's: no step is skipped
        distillation.adversary._update.use_scaler(
            torch.amp.GradScaler("cpu", init_scale=accelerator.scaler.get_scale())
        )
    set_seed(0)
    return distillation


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("method", METHODS)
def test_a_student_learns_in_half_precision_and_resumes(method: str, precision: str, tmp_path: Path) -> None:
    reference = run_of(method, Accelerator(cpu=True))
    reference.run(3)
    distillation = run_of(method, half(precision))
    start, seen = weights(distillation.student), set[torch.dtype]()
    convolution = next(
        m for m in distillation.accelerator.unwrap_model(distillation.student).modules() if hasattr(m, "kernel_size")
    )
    convolution.register_forward_hook(lambda module, inputs, output: seen.add(output.dtype))
    distillation.run(2, checkpoints=tmp_path)
    distillation.run(3)
    made = weights(distillation.student)
    assert seen == {PRECISIONS[precision]}
    assert all(value.dtype == torch.float32 for value in made.values())
    assert len(differences(start, made)) > len(start) // 2
    towards = torch.cat([(made[name] - start[name]).flatten() for name in start])
    expected = torch.cat([(value - start[name]).flatten() for name, value in weights(reference.student).items()])
    assert torch.cosine_similarity(towards, expected, 0) > 0.9

    resumed = run_of(method, half(precision))
    resumed.load(tmp_path)
    resumed.run(3)
    assert not differences(made, resumed.student.state_dict())


def test_a_scale_that_is_too_large_costs_steps_and_falls() -> None:
    accelerator = half("fp16", scale=2.0**40)
    distillation = run_of("ladd", accelerator)
    start = weights(distillation.student)
    distillation.run(1)
    assert not differences(start, distillation.student.state_dict())
    assert accelerator.scaler.get_scale() == 2.0**39
