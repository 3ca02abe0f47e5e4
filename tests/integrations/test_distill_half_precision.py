"""Every method in half precision: autocast for student and discriminator, full weights, a scaler for float16.

Accelerate gives the CPU no float16: its switch and its scaler are set here by hand.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from distill_tools import differences, reset_accelerate, weights
from method_tools import tiny_method_run, tiny_setup
from pipeline_tools import FAMILIES, tiny_conditions, tiny_family
from torch import nn

from advloss import OptionError
from advloss_distill import Distillation, Made
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


def run_of(method: str, accelerator: Accelerator, family: str = "stable-diffusion") -> Distillation:
    torch.manual_seed(0)
    distillation, _ = tiny_method_run(method, tiny_setup(family), accelerator)
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


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_learns_in_half_precision_or_says_that_it_cannot(name: str, precision: str) -> None:
    _, family = tiny_family(name)
    if precision in family.breaks_in:
        with pytest.raises(OptionError, match=f"{family.name} cannot be trained in {precision}.*Take bf16"):
            run_of("ladd", half(precision), name)
        return
    distillation = run_of("ladd", half(precision), name)
    start = weights(distillation.student)
    distillation.run(2)
    made = weights(distillation.student)
    assert all(value.isfinite().all() for value in made.values())
    assert len(differences(start, made)) > len(start) // 2


@pytest.mark.parametrize(("name", "precision"), [(n, p) for n in FAMILIES for p in tiny_family(n)[1].breaks_in])
def test_a_family_that_refuses_a_precision_has_to(name: str, precision: str) -> None:
    pipeline, family = tiny_family(name)
    noisy, timesteps = torch.randn(2, *family.shape), torch.tensor([9, 500])
    with torch.no_grad(), torch.autocast("cpu", PRECISIONS[precision]):
        output = family.output(family.network(pipeline), noisy, timesteps, tiny_conditions(family, 2))
    assert not output.isfinite().all()


def test_a_device_that_computes_otherwise_is_refused() -> None:
    """Accelerate takes float16 for the CPU, says so, and computes in 32 bits."""
    with pytest.raises(OptionError, match="mixed precision fp16 on the cpu: Accelerate would compute in 32 bits"):
        run_of("ladd", Accelerator(cpu=True, mixed_precision="fp16"))


@pytest.mark.parametrize("method", ["add", "lcm", "dmd2"])
def test_a_term_asks_the_teacher_in_half_precision(method: str) -> None:
    """But for the one whose two networks differ by less than it rounds; a decoder never, and answers are in 32 bits."""
    setup = tiny_setup("stable-diffusion")
    distillation, _ = tiny_method_run(method, setup, half("bf16"))
    seen: dict[str, set[torch.dtype]] = {"teacher": set(), "vae": set(), "answers": set()}
    for kind, network in (("teacher", setup.teacher), ("vae", setup.pipeline.vae)):
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda module, args, output, kind=kind: seen[kind].add(output.dtype))
    answer, term = setup.family.answer, distillation.term

    def answered(*args: Any) -> torch.Tensor:
        made = answer(*args)
        seen["answers"].add(made.dtype)
        return made

    def only_in_the_term(made: Made) -> torch.Tensor:
        for dtypes in seen.values():
            dtypes.clear()
        return term(made)

    setup.family.answer, distillation.term = answered, only_in_the_term  # type: ignore[method-assign]
    distillation.run(1)
    assert seen["teacher"] == {torch.float32 if method == "dmd2" else torch.bfloat16}
    assert seen["vae"] == ({torch.float32} if method == "add" else set())
    assert seen["answers"] == {torch.float32}


def test_a_scale_that_is_too_large_costs_steps_and_falls() -> None:
    accelerator = half("fp16", scale=2.0**40)
    distillation = run_of("ladd", accelerator)
    start = weights(distillation.student)
    distillation.run(1)
    assert not differences(start, distillation.student.state_dict())
    assert accelerator.scaler.get_scale() == 2.0**39
