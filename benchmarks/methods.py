"""Methods of distillation on digits, one seed each: ``python -m benchmarks.methods dmd2 lcm --out runs/methods``.

The teacher is `examples/distill_turbo.py`'s, and so are the figures. The methods are `advloss_distill.methods`, as
`examples/distill_pipeline.py` builds them, with rates for a network of 160 thousand parameters.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import UNet2DModel
from torch import Tensor, nn

from advloss_distill import Conditions, Distillation, Family, digits
from advloss_distill.methods import Setup, build_method

PATHS = ((999,), (999, 499), (999, 749, 499, 249))
EVALUATIONS = {
    "dmd2": 1,
    "lcm": 1,
    "adversarial": 0,
    "ladd": 0,
}  # of the teacher for a sample of the student, without guidance
OPTIONS: dict[str, dict[str, Any]] = {
    "dmd2": {"discriminator_steps": 3, "adversary_weight": 3e-3},
    "lcm": {"skip": 25},
    "adversarial": {
        "discriminator": ("mlp", {"in_features": 64, "num_classes": 10, "num_steps": 5, "width": 512}),
        "r1_weight": 0.1,
        "loss": "losses/relativistic",
    },
}
RATES = {"dmd2": (5e-4, 1e-3), "lcm": (5e-4, 0.0), "adversarial": (2e-4, 2e-3)}  # of student and discriminator


class DigitsFamily(Family):
    """Digits `(1, 8, 8)` as a family of teachers: pixels in place of latents, classes in place of prompts."""

    part, blocks = "unet", ("down_blocks.*", "mid_block", "up_blocks.*")
    predictions, takes = ("v_prediction",), ("class_labels",)

    def output(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Conditions) -> Tensor:
        return network(noisy, timesteps, class_labels=condition["class_labels"]).sample

    def encode(self, pipeline: Any, prompts: Sequence[str] | None, **options: Any) -> Conditions:
        raise NotImplementedError("digits have classes")

    def text(self, condition: Conditions) -> None:
        return None

    def num_classes(self, network: Any) -> int:
        return 10

    def judged(self, condition: Conditions, steps: Tensor) -> dict[str, Tensor]:
        return {**super().judged(condition, steps), "class": condition["class_labels"]}

    def feature(self, output: Any) -> Tensor:
        return output if isinstance(output, Tensor) else output[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("methods", nargs="+", choices=OPTIONS)
    parser.add_argument("--iterations", type=int, default=600)
    parser.add_argument("--teacher-iterations", type=int, default=1200)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/methods"))
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    data, teacher = digits.Digits(), load_or_train_teacher(options)
    for method in options.methods:
        rows = run(method, teacher, data, options)
        (options.out / f"{method}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def load_or_train_teacher(options: argparse.Namespace) -> UNet2DModel:
    folder = options.out / "teacher"
    if not folder.exists():
        set_seed(options.seed)
        digits.train_teacher(digits.Digits(), options.teacher_iterations).save_pretrained(folder)
    return UNet2DModel.from_pretrained(folder)


def run(method: str, teacher: UNet2DModel, data: digits.Digits, options: argparse.Namespace) -> dict[str, Any]:
    """Distil, and compare with the data before and after."""
    set_seed(options.seed)
    pipeline = SimpleNamespace(
        unet=teacher, scheduler=digits.teacher_scheduler(), vae=None, vae_scale_factor=1, components={}
    )
    family = DigitsFamily(pipeline)
    student_rate, rate = RATES[method]
    setup = Setup(
        family=family,
        pipeline=pipeline,
        data=data,
        example=data.conditions(1),
        paths=PATHS,
        batch_size=options.batch_size,
        optimizer=functools.partial(torch.optim.Adam, lr=rate, betas=(0.0, 0.99)) if rate else None,
    )
    built = build_method(method, setup, **OPTIONS[method])
    optimizer = torch.optim.Adam(built.student.parameters(), lr=student_rate, betas=(0.0, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1.0, (i + 1) / 20) * (0.51 + 0.49 * math.cos(math.pi * i / options.iterations))
    )
    distillation = Distillation(
        family,
        teacher,
        data=data,
        optimizer=optimizer,
        scheduler=schedule,
        accelerator=Accelerator(cpu=True),
        ema_decay=0.995,
        **built.arguments(),
    )
    began = time.perf_counter()

    def show(progress: Any) -> None:
        if progress.iteration % 20 == 0:
            numbers = {n: round(v, 4) for n, v in progress.as_dict().items() if "signals" not in n}
            print(f"{time.perf_counter() - began:.0f} s", json.dumps(numbers), flush=True)

    distillation.run(options.iterations, show)
    seconds = time.perf_counter() - began
    found = digits.compare(data, family, teacher, distillation.averaged_student(), 2000, options.seed)
    print(f"{method}, {options.iterations} iterations, {seconds:.0f} s")
    print(digits.table(found.figures), flush=True)
    figures = {name: one.as_dict() for name, one in found.figures.items()}
    return {"seconds": seconds, "iterations": options.iterations, "seed": options.seed, "figures": figures}


if __name__ == "__main__":
    main()
