"""Checkpoints of a distillation: Accelerate's own, with what it does not know beside it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from advloss import StateError, load_state, save_state

if TYPE_CHECKING:
    from advloss_distill._distill import Distillation


def save(distillation: Distillation, folder: Path) -> None:
    """Write ``folder/step-N``. It has another name until it is complete, and older ones go only then."""
    accelerator = distillation.accelerator
    partial = folder / ".partial"
    if accelerator.is_main_process:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(partial))
    scheduler = distillation.scheduler
    state = {
        "iteration": distillation.iteration,
        "ema": distillation.ema.state_dict(),
        "simulation": distillation.simulation.state_dict(),
        "scheduler": None if scheduler is None else scheduler.state_dict(),
    }
    save_state(state, partial / _name(accelerator.process_index))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        older = _complete(folder)
        new = folder / f"step-{distillation.iteration:08d}"
        shutil.rmtree(new, ignore_errors=True)
        partial.rename(new)
        for path in older:
            if path != new:
                shutil.rmtree(path, ignore_errors=True)
    accelerator.wait_for_everyone()


def load(distillation: Distillation, folder: Path) -> None:
    """Take up the newest complete checkpoint in `folder`."""
    complete = _complete(folder)
    if not complete:
        raise StateError(f"there is no checkpoint in {folder}; start without resuming")
    accelerator = distillation.accelerator
    state = load_state(complete[-1] / _name(accelerator.process_index))
    if (state["scheduler"] is None) != (distillation.scheduler is None):
        raise StateError(f"{complete[-1]} was written with another kind of learning-rate schedule")
    accelerator.load_state(str(complete[-1]))
    distillation.ema.load_state_dict(state["ema"])
    distillation.ema.to(accelerator.device)
    distillation.simulation.load_state_dict(state["simulation"])
    if distillation.scheduler is not None:
        distillation.scheduler.load_state_dict(state["scheduler"])
    distillation.iteration = state["iteration"]


def _complete(folder: Path) -> list[Path]:
    return sorted(folder.glob("step-*")) if folder.is_dir() else []


def _name(rank: int) -> str:
    return f"distillation_{rank}.safetensors"
