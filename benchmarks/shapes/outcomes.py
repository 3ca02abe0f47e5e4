"""What runs leave in a folder: students, as trained, and what they are worth after a part of the way back to the start."""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor
from torchvision.utils import save_image

from advloss_distill import step_back, student_scheduler
from benchmarks.shapes.domain import STEPS, Domain
from benchmarks.shapes.judge import Figures
from benchmarks.shapes.methods import RUNS, Outcome

PICTURED = 144


def of_run(method: str, seed: int, outcome: Outcome, domain: Domain, folder: Path) -> dict[str, Figures]:
    """Keep a run's student, and what it is worth."""
    outcome.student.save_pretrained(folder / f"{method}-{seed}")
    return _worth(f"{method}-{seed}", outcome, RUNS[method].back, domain, folder)


def of_average(method: str, domain: Domain, folder: Path) -> dict[str, Figures]:
    """The same of the average weights of all seeds' students (model soups, arXiv:2203.05482).

    They go less of the way back: what chance did to each of them cancels already.
    """
    runs = sorted(folder.glob(f"{method}-*/"))
    if len(runs) < 2:
        sys.exit(f"{folder} has {len(runs)} student of {method}: run it with two seeds or more, then average them")
    kept = [json.loads(run.with_suffix(".json").read_text(encoding="utf-8")) for run in runs]
    student = averaged([UNet2DConditionModel.from_pretrained(run).eval() for run in runs])
    seconds, evaluations = (sum(run[cost] for run in kept) for cost in ("seconds", "evaluations"))
    outcome = Outcome(seconds, evaluations, student)
    return _worth(f"{method}-average", outcome, RUNS[method].back / 2, domain, folder)


@torch.no_grad()
def averaged(students: Sequence[Any]) -> Any:
    """A network with the average of their weights."""
    found = copy.deepcopy(students[0])
    for parameters in zip(found.parameters(), *(student.parameters() for student in students), strict=True):
        parameters[0].copy_(torch.stack(parameters[1:]).mean(0))
    return found


def save(images: Tensor, path: Path) -> None:
    """Some of them, a row for each colour of each shape."""
    save_image(images[:PICTURED].clamp(-1, 1) / 2 + 0.5, path, nrow=36)


def _worth(name: str, outcome: Outcome, back: float, domain: Domain, folder: Path) -> dict[str, Figures]:
    method, scheduler = name.rpartition("-")[0], student_scheduler(domain.family)
    student = copy.deepcopy(outcome.student)
    if RUNS[method].started:
        step_back(student, domain.start, back)
    rows = {}
    for steps in STEPS:
        made = domain.samples(student, scheduler, steps)
        rows[f"{method}, {steps}"] = domain.evaluation(made, domain.labels)
        save(made, folder / f"{name}-{steps}.png")
    figures = {row: dataclasses.asdict(found) for row, found in rows.items()}
    kept = {"seconds": outcome.seconds, "evaluations": outcome.evaluations, "figures": figures}
    (folder / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    print(f"{name}: {outcome.seconds:.0f} s of one thread, {outcome.evaluations:.3f} million samples of the teacher")
    return rows
