"""Run by test_distill_pipeline_processes in two processes: an adapter and a whole student of Sana, by LADD."""

from __future__ import annotations

import sys
from pathlib import Path

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
    sampling_paths,
    spread,
    student_scheduler,
)

out, told = Path(sys.argv[1]), {}
for kind in ("adapter", "whole"):
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    pipeline, family = tiny_family("sana", renoising=Renoising())
    teacher = pipeline.transformer
    student = family.adapted(teacher, rank=2) if kind == "adapter" else family.student(teacher)
    data = LatentData(torch.randn(6, *family.shape), tiny_conditions(family, 6))
    paths = sampling_paths(student_scheduler(family))
    adversary = advloss.Adversary(TeacherDiscriminator(family, teacher, data.told, width=8), loss="hinge")
    distillation = Distillation(
        family,
        teacher,
        student,
        adversary,
        BackwardSimulation(family.diffusion, paths, spread(paths, 8)),
        data,
        torch.optim.Adam([p for p in student.parameters() if p.requires_grad], lr=1e-3),
        accelerator=accelerator,
        distillation_weight=0.5,
    )
    set_seed(0, device_specific=True)
    before = {name: value.clone() for name, value in student.state_dict().items()}
    distillation.run(2, checkpoints=out / kind)
    told[kind] = {
        "before": before,
        "student": accelerator.unwrap_model(distillation.student).state_dict(),
        "discriminator": adversary.discriminator.state_dict(),
        "inputs": distillation.simulation.state_dict()["noisy"],
        "prepared": len(accelerator._models),
    }
torch.save(told, out / f"rank{accelerator.process_index}.pt")
accelerator.end_training()
