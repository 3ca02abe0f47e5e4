"""Run by test_superres_processes in two processes: trains through both phases, is interrupted by nothing, and tells."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from superres_tools import both_phases, training

out = Path(sys.argv[1])
accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2
run = training(accelerator, *both_phases(accelerator.process_index, 2))
seen, ends = [], []
run.run(
    lambda progress: seen.append(progress.as_dict()),
    lambda phase, averaged: ends.append({name: value.clone() for name, value in averaged.state_dict().items()}),
    checkpoints=out / "checkpoints",
)
again = training(accelerator, *both_phases(accelerator.process_index, 2))
again.load(out / "checkpoints")
adversary = run.phase.objective.adversary
told = {
    "model": run.model.state_dict(),
    "resumed": again.model.state_dict(),
    "step": again.step_count,
    "ends": ends,
    "discriminator": adversary.discriminator.state_dict(),
    "pixel": [numbers["pixel"] for numbers in seen],
}
torch.save(told, out / f"rank{accelerator.process_index}.pt")
accelerator.end_training()
