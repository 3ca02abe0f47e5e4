"""Students whose optimizer keeps moments of 8 bits, and students that forget their activations."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from distill_tools import differences, fresh_accelerator, weights
from pipeline_tools import FAMILIES, tiny_conditions, tiny_family
from test_distill_families import tiny_run

from advloss_distill import Distillation


def eight_bits(accelerator: Accelerator) -> Distillation:
    """DiT's classes are the only weights that bitsandbytes takes for large enough (4,096)."""
    optim = pytest.importorskip("bitsandbytes.optim")
    pipeline, family = tiny_family("dit")
    torch.manual_seed(3)
    return tiny_run(pipeline, family, family.student(pipeline.transformer), accelerator, optim.AdamW8bit)


def test_moments_of_8_bits_resume_bit_by_bit(tmp_path: Path) -> None:
    ends = []
    for stops in (False, True):
        for accelerator in fresh_accelerator():
            distillation = eight_bits(accelerator)
            if stops:
                distillation.run(2, checkpoints=tmp_path)
                distillation = eight_bits(accelerator)
                distillation.load(tmp_path)
            distillation.run(4)
            kinds = {
                v.dtype for held in distillation.optimizer.state.values() for v in held.values() if hasattr(v, "dtype")
            }
            assert torch.uint8 in kinds
            ends.append((weights(distillation.student), weights(distillation.averaged_student())))
    assert not differences(*ends)


@pytest.mark.parametrize("name", sorted(FAMILIES))
def test_gradient_checkpointing_changes_no_gradient(name: str) -> None:
    pipeline, family = tiny_family(name)
    student = family.student(pipeline.components[family.part])
    condition, noisy = tiny_conditions(family, 2), torch.randn(2, *family.shape)
    found, kept = [], []
    for checkpointing in (False, True):
        if checkpointing:
            student.enable_gradient_checkpointing()
        student.zero_grad()
        sizes: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, sizes=sizes: sizes.append(t.nbytes) or t, lambda t: t):
            x0 = family.x0(student, noisy, torch.tensor([999, 499]), condition)
        x0.square().mean().backward()
        found.append({n: p.grad.clone() for n, p in student.named_parameters() if p.grad is not None})
        kept.append(sum(sizes))
    assert kept[1] < 0.8 * kept[0]
    assert found[0]
    assert not differences(*found)
