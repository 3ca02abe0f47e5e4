"""A step of distillation beside its estimate: at published sizes on a GPU, small networks of each family on a CPU.

Weights, latents and prompts are random. All else is as `examples/distill_pipeline.py` has it with ``--half-teacher
--gradient-checkpointing --mixed-precision bf16 --batch-size 1 --steps 1``; ADD decodes a crop.
"""

from __future__ import annotations

import contextlib
import gc
import statistics
from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState

from advloss_distill import Distillation, LatentData, sampling_paths, student_scheduler
from advloss_distill.methods import Setup, build_method
from benchmarks._harness import Settings, Table, peak_bytes, seconds
from benchmarks._published import PUBLISHED, Published
from benchmarks.distill_estimate import CROP, RANK, estimate, named

PERIOD = 4
"""Iterations, of which one has `ladd`'s R1."""
ON_A_GPU = ("Stable Diffusion 1.5", "SDXL")
DINO = {"backbone": "vit_small_patch14_dinov2.lvd142m", "pretrained": False, "resolution": 518}
SMALL_DINO = {"backbone": "test_vit", "pretrained": False, "resolution": 32, "blocks": (1, 3)}
COLUMNS = (
    "model",
    "pixels",
    "million",
    "student",
    "method",
    "seconds a step",
    "peak, GB",
    "estimate, GB",
    "peak / estimate",
)


def rows(settings: Settings) -> Iterator[Table]:
    """Of `ladd` and `add`, full and with an adapter."""
    cuda = torch.device(settings.device).type == "cuda"
    small = settings.short or not cuda
    names = ON_A_GPU[: settings.size(2, 1)] if cuda or settings.short else [one.name for one in PUBLISHED]
    found = []
    for published in (one for one in PUBLISHED if one.name in names):
        resolution = published.small_resolution // settings.size(1, 4) if small else published.resolution
        for method in ("ladd", "add"):
            for lora in (0, RANK):
                where, steps = settings.device, settings.size(PERIOD, 1)
                found.append(measured(published, method, lora, resolution, where, small=small, steps=steps))
    sizes = "small networks" if small else "published sizes"
    yield Table(title=f"A step of distillation on one sample, {sizes}", columns=COLUMNS, rows=found)


class Step:
    """An iteration of a method on one sample: the discriminator's turn and the student's."""

    def __init__(
        self, published: Published, method: str, lora: int, resolution: int, device: str, *, small: bool
    ) -> None:
        pipeline, family = published.build(device, resolution, small=small)
        teacher = family.network(pipeline)
        data = LatentData(torch.randn(2, *family.shape, device=device), published.conditions(2, device))
        setup = Setup(
            family=family,
            pipeline=pipeline,
            data=data,
            example=data.conditions(1),
            paths=sampling_paths(student_scheduler(family, 1), [1]),
            batch_size=1,
            lora=lora,
        )
        judge = {"discriminator": ("timm/dino", SMALL_DINO if small else DINO)} if method == "add" else {}
        built = build_method(method, setup, **judge, **options(method, resolution))
        student: Any = built.student
        student.enable_gradient_checkpointing()
        trained = [p for p in student.parameters() if p.requires_grad]
        self.held = Distillation(
            family,
            teacher.to(torch.bfloat16),
            data=data,
            optimizer=torch.optim.AdamW(trained, lr=1e-5, betas=(0.0, 0.99), weight_decay=0.0),
            accelerator=Accelerator(cpu=device == "cpu", mixed_precision="bf16"),
            **built.arguments(),
        )
        self.device, self.seconds = device, list[float]()

    def step(self) -> None:
        self.seconds.append(seconds(lambda: self.held.run(self.held.iteration + 1), self.device))


def options(method: str, resolution: int) -> dict[str, Any]:
    """Of `method`: what of an image is decoded."""
    return {"crop": min(CROP, resolution // 2)} if method == "add" else {}


def measured(
    published: Published, method: str, lora: int, resolution: int, device: str, *, small: bool, steps: int = PERIOD
) -> list[Any]:
    """A row of `COLUMNS`, over `steps` after the first; where memory runs out it says so, and keeps none of it."""
    pipeline, family = published.build("meta", resolution, small=small)
    count = sum(p.numel() for p in family.network(pipeline).parameters())
    what = [published.name, resolution, round(count / 1e6), named(lora), method]
    expected = estimate(published, method, lora, resolution, small=small, **options(method, resolution)).total
    made: list[Step] = []

    def make() -> Step:
        made.append(Step(published, method, lora, resolution, device, small=small))
        return made[0]

    try:
        with _accelerate():
            peak = peak_bytes(make, device, steps, warm=1)
        taken = statistics.fmean(made[0].seconds[1:])
        return [*what, taken, peak / 1e9, expected / 1e9, peak / expected]
    except torch.OutOfMemoryError:
        return [*what, "", "out of memory", expected / 1e9, ""]
    finally:
        made.clear()
        gc.collect()
        torch.cuda.empty_cache()


@contextlib.contextmanager
def _accelerate() -> Iterator[None]:
    """Inside, a precision can be chosen anew: Accelerate keeps the first one for the process."""
    _forget()
    try:
        yield
    finally:
        _forget()


def _forget() -> None:
    for state in (AcceleratorState, GradientState):
        state._reset_state()
