"""Run by test_distill_sharded in two processes: a student whole (DDP), sharded (FSDP2), and sharded, saved and resumed.

Accelerate gives the CPU no FSDP, it falls back to DDP in silence. FSDP2 itself works on gloo: its type is set here by hand.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.utils import DistributedType, set_seed
from pipeline_tools import tiny_conditions, tiny_family
from torch.distributed.tensor import DTensor

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


def sharding() -> Accelerator:
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["SanaTransformerBlock"],
        cpu_ram_efficient_loading=False,
    )
    accelerator = Accelerator(cpu=True, fsdp_plugin=plugin)
    accelerator.state.distributed_type, accelerator.state.fsdp_plugin = DistributedType.FSDP, plugin
    return accelerator


def distillation_of(accelerator: Accelerator, kind: str) -> Distillation:
    pipeline, family = tiny_family("sana", renoising=Renoising())
    teacher = pipeline.transformer
    student = family.adapted(teacher, rank=2) if kind == "adapter" else family.student(teacher)
    data = LatentData(torch.randn(6, *family.shape), tiny_conditions(family, 6))
    paths = sampling_paths(student_scheduler(family))
    adversary = advloss.Adversary(TeacherDiscriminator(family, teacher, data.told, width=8), loss="hinge")
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
    )
    set_seed(0, device_specific=True)
    return made


def tell(name: str, made: Distillation) -> None:
    parameters = list(made.student.parameters())
    told[name] = {
        "student": made.averaged_student().state_dict(),
        "discriminator": {n: v.clone() for n, v in made.adversary.discriminator.state_dict().items()},
        "sharded": sum(isinstance(parameter, DTensor) for parameter in parameters) / len(parameters),
        "held": sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in parameters),
        "teacher": sum(isinstance(parameter, DTensor) for parameter in made.teacher.parameters()),
    }


def train(accelerator: Accelerator, name: str, kind: str) -> None:
    made: Any = distillation_of(accelerator, kind)
    made.run(3)
    tell(name, made)


for kind in ("whole", "adapter"):
    train(Accelerator(cpu=True), f"ddp {kind}", kind)
for kind in ("whole", "adapter"):
    train(sharding(), f"fsdp {kind}", kind)
    stopped = distillation_of(sharding(), kind)
    stopped.run(2, checkpoints=out / kind)
    accelerator = sharding()
    resumed = distillation_of(accelerator, kind)
    set_seed(7, device_specific=True)
    resumed.load(out / kind)
    resumed.run(3)
    tell(f"resumed {kind}", resumed)
torch.save(told, out / f"rank{accelerator.process_index}.pt")
accelerator.end_training()
