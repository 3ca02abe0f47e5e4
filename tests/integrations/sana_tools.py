"""A tiny Sana, or another family, that is distilled by LADD, for tests in two processes."""

from __future__ import annotations

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from pipeline_tools import tiny_conditions, tiny_family

import advloss
from advloss_distill import (
    BackwardSimulation,
    Distillation,
    LatentData,
    Renoising,
    TeacherDiscriminator,
    Term,
    sampling_paths,
    shard_teacher,
    spread,
    student_scheduler,
)


def distillation_of(
    accelerator: Accelerator,
    kind: str,
    *,
    of: str = "sana",
    checkpointing: bool = False,
    teacher_too: bool = False,
    term: Term | None = None,
) -> Distillation:
    pipeline, family = tiny_family(of, renoising=Renoising())
    teacher = pipeline.transformer
    student = family.adapted(teacher, rank=2) if kind == "adapter" else family.student(teacher)
    if checkpointing:
        student.enable_gradient_checkpointing()
    data = LatentData(torch.randn(6, *family.shape), tiny_conditions(family, 6))
    paths = sampling_paths(student_scheduler(family))
    adversary = advloss.Adversary(TeacherDiscriminator(family, teacher, data.told, width=8), loss="hinge")
    if teacher_too:
        shard_teacher(family, teacher.requires_grad_(False))
    made = Distillation(
        family,
        teacher,
        student,
        adversary,
        BackwardSimulation(family.diffusion, paths, spread(paths, 8)),
        data,
        torch.optim.Adam([p for p in student.parameters() if p.requires_grad], lr=1e-3, eps=1e-3),
        accelerator=accelerator,
        distillation_weight=0.5,
        term=term,
    )
    set_seed(0, device_specific=True)
    return made
