"""Run by test_distill_sharded in two processes: a student whole (DDP), sharded (FSDP2), and sharded, saved and resumed.

Also both with two batches an iteration, in bfloat16 with gradient checkpointing, with the teacher sharded, too, and with a
network that calls a part of a block from outside.

Accelerate gives the CPU no FSDP, it falls back to DDP in silence. FSDP2 itself works on gloo: its type is set here by hand.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType, set_seed
from sana_tools import distillation_of
from torch import Tensor
from torch.distributed.tensor import DTensor

from advloss import OptionError
from advloss_distill import Distillation, Made
from advloss_distill._digest import weights_digest
from advloss_distill._room import checkpoint_size

VARIANTS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "accumulated": ({"gradient_accumulation_steps": 2}, {}),
    "bfloat16": ({"mixed_precision": "bf16"}, {"checkpointing": True}),
    "teacher": ({}, {"teacher_too": True}),
    "classes": ({}, {"of": "dit"}),
    "classes teacher": ({}, {"of": "dit", "teacher_too": True}),
}
"""Options of the accelerator, and of the run."""
BLOCKS = {"sana": "SanaTransformerBlock", "dit": "BasicTransformerBlock"}
out, told = Path(sys.argv[1]), {}


def sharding(of: str = "sana", **options: Any) -> Accelerator:
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=[BLOCKS[of]],
        cpu_ram_efficient_loading=False,
    )
    plugin.cpu_ram_efficient_loading = True  # accelerate launch's default, which asks for a GPU when it is given
    accelerator = Accelerator(cpu=True, fsdp_plugin=plugin, **options)
    accelerator.state.distributed_type, accelerator.state.fsdp_plugin = DistributedType.FSDP, plugin
    return accelerator


class AsksAverage:
    needs_average = True

    def __call__(self, made: Made) -> Tensor:
        raise AssertionError("training has begun")


def tell(name: str, made: Distillation) -> None:
    parameters, teacher = list(made.student.parameters()), list(made.teacher.parameters())
    told[name] = {
        "student": made.averaged_student().state_dict(),
        "discriminator": {n: v.clone() for n, v in made.adversary.discriminator.state_dict().items()},
        "sharded": sum(isinstance(parameter, DTensor) for parameter in parameters) / len(parameters),
        "held": sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in parameters),
        "checkpoint": checkpoint_size(made),
        "digest": weights_digest(made.teacher),
        "teacher": sum(isinstance(parameter, DTensor) for parameter in teacher) / len(teacher),
    }


def train(accelerator: Accelerator, name: str, kind: str, **options: Any) -> None:
    made: Any = distillation_of(accelerator, kind, **options)
    made.run(3)
    tell(name, made)


for kind in ("whole", "adapter"):
    train(Accelerator(cpu=True), f"ddp {kind}", kind)
for kind in ("whole", "adapter"):
    train(sharding(), f"fsdp {kind}", kind)
    stopped = distillation_of(sharding(), kind)
    stopped.begin(out / kind)
    stopped.run(2, checkpoints=out / kind)
    accelerator = sharding()
    resumed = distillation_of(accelerator, kind)
    set_seed(7, device_specific=True)
    resumed.begin(out / kind, resume=True)
    resumed.run(3)
    tell(f"resumed {kind}", resumed)
for name, (options, more) in VARIANTS.items():
    fsdp = functools.partial(sharding, more.get("of", "sana"))
    for way, made in (("ddp", functools.partial(Accelerator, cpu=True)), ("fsdp", fsdp)):
        AcceleratorState._reset_state(reset_partial_state=False)
        accelerator = made(**options)
        train(accelerator, f"{way} {name}", "whole", **more)
try:
    distillation_of(sharding("dit"), "whole", of="dit", term=AsksAverage())
except OptionError as error:
    told["refused"] = str(error)
torch.save(told, out / f"rank{accelerator.process_index}.pt")
accelerator.end_training()
