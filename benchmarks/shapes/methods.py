"""Each method with rates and options for a network of half a million parameters."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from advloss_distill import Distillation, family_of, sampling_paths, student_scheduler
from advloss_distill.methods import Setup, build_method
from benchmarks.shapes.domain import STEPS, Domain
from benchmarks.shapes.models import cosine

RELATIVISTIC = "losses/relativistic"
TRUNK = {"architecture": "convolutional", "norm": "none"}
ON_LATENTS = ("discriminators/projection", {**TRUNK, "width": 32})
# on squares of 4 x 4 pixels, for a sixth of the time
ON_SQUARES = (
    "discriminators/pixel-unshuffle",
    {"factor": 4, "discriminator": ("discriminators/projection", {**TRUNK, "width": 48})},
)
# what drifts is the spread of colours, of which one sample tells little
ON_IMAGES = ("discriminators/minibatch", {"discriminator": ON_SQUARES})


@dataclass(frozen=True)
class Run:
    """Attributes:
    iterations: of the student.
    student_rate, rate: of Adam, for the student and the discriminator.
    batches: of the domain's size, in one of the student's: means over few samples are noisy, and a student drifts with them.
    falls: whether the discriminator's rate falls, as the student's does.
    first: share of a batch at the first step.
    backward: whether inputs of later steps are the student's own samples; noised real ones otherwise.
    started: on the teacher's trajectories; a copy of the teacher otherwise.
    ema_decay: of the student's moving average.
    back: of the way to where a student started, in the end (docs/distillation.md).
    options: of the method.
    """

    iterations: int
    student_rate: float
    rate: float
    batches: int = 2
    falls: bool = False
    first: float = 0.5
    backward: bool = True
    started: bool = True
    ema_decay: float = 0.995
    back: float = 0.5
    options: dict[str, Any] = field(default_factory=dict)


RUNS = {
    "lcm": Run(500, 5e-4, 0.0, started=False, options={"skip": 25}),
    "adversarial": Run(600, 1e-4, 1e-3, options={"discriminator": ON_LATENTS, "loss": RELATIVISTIC, "r1_weight": 0.05}),
    "ladd": Run(
        700,
        1e-4,
        1e-3,
        back=0.45,
        options={"loss": RELATIVISTIC, "renoise": (-2.0, 1.0), "blocks": (0, 4), "r1_weight": 1e-3},
    ),
    "add": Run(
        900,
        6e-5,
        2e-3,
        batches=4,
        falls=True,
        backward=False,
        ema_decay=0.998,
        back=0.0,
        options={
            "discriminator": ON_IMAGES,
            "loss": RELATIVISTIC,
            "distillation_weight": 0.3,
            "r1_method": "exact",
            "r1_weight": 0.2,
        },
    ),
    "dmd2": Run(
        260,
        5e-5,
        5e-4,
        falls=True,
        first=0.2,
        back=0.2,
        options={
            "loss": RELATIVISTIC,
            "discriminator_steps": 4,
            "adversary_weight": 1.0,
            "distillation_weight": 0.15,
            "blocks": (0, 4),
            "renoise": (-2.0, 1.2),
            "r1_method": "exact",
            "r1_weight": 0.05,
        },
    ),
}


@dataclass(frozen=True)
class Outcome:
    """Attributes:
    seconds: of training, without the start.
    evaluations: of the teacher, in millions of samples, without the start's.
    student: the moving average, before it goes back.
    """

    seconds: float
    evaluations: float
    student: Any


def run(method: str, domain: Domain, seed: int, iterations: int | None, show: Callable[..., None]) -> Outcome:
    """Distil."""
    set_seed(seed)
    settings, scheduler = RUNS[method], student_scheduler(domain.family)
    count = settings.iterations if iterations is None else iterations
    rate, turns = settings.rate, settings.options.get("discriminator_steps", 1)
    family = family_of(domain.pipeline)  # methods set how it draws noise
    setup = Setup(
        family=family,
        pipeline=domain.pipeline,
        data=domain.data,
        example=domain.data.conditions(1),
        paths=sampling_paths(scheduler, STEPS),
        batch_size=settings.batches * domain.sizes.batch_size,
        first=settings.first,
        optimizer=functools.partial(torch.optim.Adam, lr=rate, betas=(0.0, 0.99)) if rate else None,
        scheduler=functools.partial(cosine, steps=count * turns) if settings.falls else None,
        backward_simulation=settings.backward if settings.started else None,
    )
    built = build_method(method, setup, **settings.options)
    if settings.started:
        built.student.load_state_dict(domain.start.state_dict())
    optimizer = torch.optim.Adam(built.student.parameters(), lr=settings.student_rate, betas=(0.0, 0.99))
    distillation = Distillation(
        family,
        domain.teacher,
        data=domain.data,
        optimizer=optimizer,
        # slowly at first: a discriminator that has learned nothing yet leads away from a good start
        scheduler=cosine(optimizer, count, warmup=max(20, count // 4) if settings.started else 20),
        accelerator=Accelerator(cpu=True),
        ema_decay=settings.ema_decay,
        **built.arguments(),
    )
    began = time.process_time()
    with _counted(domain.teacher) as evaluations:
        if not distillation.run(count, lambda progress: show(method, progress.iteration, progress.as_dict())):
            sys.exit(distillation.exit_status)
    return Outcome(time.process_time() - began, sum(evaluations) / 1e6, distillation.averaged_student())


@contextmanager
def _counted(teacher: Any) -> Iterator[list[int]]:
    """How many samples each of its forwards has."""
    counts: list[int] = []
    hook = teacher.conv_in.register_forward_hook(lambda _, given, __: counts.append(len(given[0])))
    try:
        yield counts
    finally:
        hook.remove()
