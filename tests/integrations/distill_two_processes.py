"""Run by test_distill_processes in two processes: trains, saves, goes on in a fresh object, and tells."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from distill_tools import Stripes, tiny_distillation

from advloss_distill import digits

out = Path(sys.argv[1])
torch.set_flush_denormal(True)


class Recorded(Stripes):
    """Keeps the labels that were asked for."""

    labels: list[torch.Tensor] = []  # noqa: RUF012

    def conditions(self, count: int) -> dict[str, torch.Tensor]:
        condition = super().conditions(count)
        self.labels.append(condition["class_labels"])
        return condition


def distillation(iterations: int, resume: bool) -> dict[str, object]:
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    made = tiny_distillation(accelerator, distillation_weight=0.5)
    made.data = Recorded()
    set_seed(11 if resume else 0, device_specific=True)
    if resume:
        made.load(out / "checkpoints")
    begun_with = made.simulation.state_dict()
    made.run(iterations)
    if not resume:
        made.save(out / "checkpoints")
    return {
        "student": accelerator.unwrap_model(made.student).state_dict(),
        "average": list(made.ema.shadow_params),
        "discriminator": made.adversary.discriminator.state_dict(),
        "teacher": made.teacher.state_dict(),
        "begun with": begun_with,
        "simulation": made.simulation.state_dict(),
        "labels": list(Recorded.labels),
        "iteration": made.iteration,
    }


told = {"started": distillation(2, resume=False), "resumed": distillation(4, resume=True)}
accelerator = Accelerator(cpu=True)
if accelerator.is_main_process:  # no other takes part in it
    figures = digits.Evaluation(digits.Digits(), digits.Classifier().eval()).held_out()
    told["figures"] = figures.as_dict()
torch.save(told, out / f"rank{accelerator.process_index}.pt")
accelerator.end_training()
