"""Run by test_distill_pipeline_processes in two processes: an adapter and a whole student of Sana, by LADD."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from sana_tools import distillation_of

out, told = Path(sys.argv[1]), {}
for kind in ("adapter", "whole"):
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    distillation = distillation_of(accelerator, kind)
    student, adversary = accelerator.unwrap_model(distillation.student), distillation.adversary
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
