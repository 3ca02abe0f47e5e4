"""Distil a many-step diffusion teacher into a student of 1 to 4 steps.

Without arguments it runs on scikit-learn's digits, with no download: it trains a small class-conditional teacher (or
loads the one that it trained before), distils it, and compares both with the data.

    python examples/distill_turbo.py
    python examples/distill_turbo.py --resume              # go on after Ctrl-C
    python examples/distill_turbo.py --seed 1 --out runs/turbo-1
    python examples/distill_turbo.py --method add          # the ADD paper's own combination
    accelerate launch --multi_gpu --num_processes 2 examples/distill_turbo.py --cpu

Everything is written to one folder (--out): the student in diffusers' format, metrics.json, log.jsonl, samples.png.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import math
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import UNet2DModel
from torch import nn
from tqdm import tqdm

import advloss
from advloss_distill import (
    AlongNeighbours,
    BackwardSimulation,
    ClassConditional,
    Diffusion,
    Distillation,
    NoisedData,
    Progress,
    TeacherMade,
    Trajectories,
    digits,
    follow,
    roll_out,
    step_back,
)

# Samples of a batch at each step of the sampling paths of 1, 2 and 4 steps.
PATHS = ((999,), (999, 499), (999, 749, 499, 249))
COUNTS = {(999,): 72, (999, 749): 15, (999, 499): 15, (999, 749, 499): 15, (999, 749, 499, 249): 15}
SOLVER_STEPS = 40  # of the teacher on a trajectory; it has to come by the timesteps of the paths
TEACHER_SHARES = (0.35, 0.45)  # of its samples among the real ones, at the first step and at later ones


@advloss.register_discriminator("dense", conditions=("class", "time"), output="logit")
class Dense(nn.Module):
    """A dense network on all pixels, told the class and the student's step by projection (arXiv:1802.05637)."""

    def __init__(self, pixels: int, num_classes: int, num_steps: int, width: int = 512, depth: int = 3):
        super().__init__()
        self.num_classes, self.num_steps = num_classes, num_steps  # what the adversary checks conditions against
        widths = [pixels] + [width] * depth
        layers = [(nn.Linear(a, b), nn.LeakyReLU(0.2)) for a, b in pairwise(widths)]
        self.features = nn.Sequential(nn.Flatten(), *(layer for pair in layers for layer in pair))
        self.logit = nn.Linear(width, 1)
        self.classes, self.steps = nn.Embedding(num_classes, width), nn.Embedding(num_steps, width)

    def forward(self, samples, condition):
        features = self.features(samples)
        embedding = self.classes(condition["class"]) + self.steps(condition["time"])
        return self.logit(features).squeeze(1) + (embedding * features).sum(1) / features.shape[1] ** 0.5


def main() -> int:
    options = parse()
    accelerator = Accelerator(cpu=options.cpu)
    if accelerator.device.type == "cpu":
        torch.set_flush_denormal(True)  # small GANs are several times slower with denormal numbers
    set_seed(options.seed, device_specific=True)
    began = time.perf_counter()
    check_settings(options, accelerator)
    data = digits.Digits(accelerator.device)
    teacher = load_or_train_teacher(data, options, accelerator)
    distillation = (distil_add if options.method == "add" else distil)(teacher, data, options, accelerator)
    if options.resume:
        distillation.load(options.out / "checkpoints")
    if not run(distillation, options):
        accelerator.print(f"stopped after iteration {distillation.iteration}; go on with --resume")
        accelerator.end_training()
        return distillation.exit_status
    if accelerator.is_main_process:
        finish(distillation, data, options, time.perf_counter() - began)
    accelerator.end_training()
    return 0


def distil(
    teacher: UNet2DModel, data: digits.Digits, options: argparse.Namespace, accelerator: Accelerator
) -> Distillation:
    """The combination that measured best on digits: it starts on the teacher's trajectories."""
    denoiser = ClassConditional(Diffusion.from_scheduler(digits.teacher_scheduler()), clip=1.0)
    trajectories = load_or_roll_out(teacher, denoiser, options, accelerator)
    made = trajectories.samples.clamp(-1, 1), trajectories.condition["class_labels"]
    student = load_or_start_student(teacher, denoiser, trajectories, options, accelerator)
    adversary = advloss.Adversary(
        ("dense", {"pixels": 64, "num_classes": 10, "num_steps": len(COUNTS)}),
        loss="relativistic",
        regularizers={"r1": {"weight": 0.1, "every": 4}, "r2": {"weight": 0.1, "every": 4}},
        augmentations={"instance-noise": {"sigma": 0.15}},
        optimizer=functools.partial(torch.optim.Adam, lr=2e-3, betas=(0.0, 0.99), fused=True),
        scheduler=functools.partial(cosine, iterations=options.iterations),
    )
    simulation = BackwardSimulation(denoiser.diffusion, PATHS, COUNTS)
    shares = torch.tensor(TEACHER_SHARES)[(simulation.steps > 0).long()]
    return distillation_of(
        denoiser,
        teacher,
        student,
        adversary,
        simulation,
        TeacherMade(AlongNeighbours(data, data.images, data.labels), *made, share=shares),
        options=options,
        accelerator=accelerator,
    )


def distil_add(
    teacher: UNet2DModel, data: digits.Digits, options: argparse.Namespace, accelerator: Accelerator
) -> Distillation:
    """The ADD paper's combination (arXiv:2311.17042): frozen features, noised real samples, the teacher's term."""
    denoiser = ClassConditional(Diffusion.from_scheduler(digits.teacher_scheduler()), clip=1.0)
    adversary = advloss.Adversary.from_recipe(
        "add", backbone=options.backbone, pretrained=options.pretrained, in_channels=1, resolution=32, num_classes=10
    )
    return distillation_of(
        denoiser,
        teacher,
        copy.deepcopy(teacher),
        adversary,
        NoisedData(denoiser.diffusion, PATHS[-1], sum(COUNTS.values()), data),
        data,
        options=options,
        accelerator=accelerator,
    )


def distillation_of(
    denoiser: ClassConditional,
    teacher: UNet2DModel,
    student: UNet2DModel,
    adversary: advloss.Adversary,
    simulation: BackwardSimulation | NoisedData,
    data: digits.Digits | TeacherMade,
    *,
    options: argparse.Namespace,
    accelerator: Accelerator,
) -> Distillation:
    """What both methods share."""
    student.train().requires_grad_(True)
    optimizer = torch.optim.Adam(student.parameters(), lr=options.lr, betas=(0.0, 0.99), fused=True)
    return Distillation(
        denoiser,
        teacher,
        student,
        adversary,
        simulation,
        data,
        optimizer,
        cosine(optimizer, options.iterations),
        accelerator=accelerator,
        distillation_weight=options.distillation_weight,
        ema_decay=0.998,
    )


def cosine(optimizer: torch.optim.Optimizer, iterations: int) -> torch.optim.lr_scheduler.LambdaLR:
    """A short rise, then half a cosine down to a fiftieth."""

    def factor(iteration: int) -> float:
        return min(1.0, (iteration + 1) / 20) * (0.51 + 0.49 * math.cos(math.pi * iteration / iterations))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def check_settings(options: argparse.Namespace, accelerator: Accelerator) -> None:
    """A folder is for one teacher: refuse to go on with another one's under a new seed."""
    path = options.out / "settings.json"
    settings = {
        name: getattr(options, name) for name in ("seed", "teacher_iterations", "trajectories", "start_iterations")
    }
    try:
        earlier = json.loads(path.read_text(encoding="utf-8")) if path.exists() else settings
    except ValueError as error:
        raise advloss.StateError(
            f"{path} cannot be read ({error}): delete {options.out}, or give another as --out"
        ) from error
    if earlier != settings:
        differ = ", ".join(f"--{k.replace('_', '-')} {v}" for k, v in earlier.items() if settings.get(k) != v)
        raise advloss.OptionError(f"{options.out} was begun with {differ}; give the same, or another folder as --out")
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        options.out.mkdir(parents=True, exist_ok=True)
        partial = path.with_name(f"partial_{path.name}")
        partial.write_text(json.dumps(settings) + "\n", encoding="utf-8")
        partial.replace(path)


def made_once(path: Path, accelerator: Accelerator, make: Callable[[Path], object]) -> Path:
    """What an earlier run in this folder made, or what the main process makes now, whole or not at all."""
    if accelerator.is_main_process and not path.exists():
        partial = path.with_name(f"partial_{path.name}")
        make(partial)
        partial.rename(path)
    accelerator.wait_for_everyone()
    return path


def load_or_train_teacher(data: digits.Digits, options: argparse.Namespace, accelerator: Accelerator) -> UNet2DModel:
    """The many-step model."""

    def make(folder: Path) -> None:
        with progress_bar("teacher", options.teacher_iterations) as bar:
            teacher = digits.train_teacher(data, options.teacher_iterations, on_progress=lambda i, loss: bar.update())
        teacher.save_pretrained(folder)

    folder = made_once(options.out / "teacher", accelerator, make)
    return UNet2DModel.from_pretrained(folder).to(accelerator.device)


def load_or_roll_out(
    teacher: UNet2DModel, denoiser: ClassConditional, options: argparse.Namespace, accelerator: Accelerator
) -> Trajectories:
    """The teacher's ways from noise to samples."""

    def make(path: Path) -> None:
        condition = {"class_labels": torch.arange(options.trajectories, device=accelerator.device) % 10}
        noise = torch.randn(options.trajectories, 1, 8, 8, device=accelerator.device)
        solver = digits.teacher_scheduler()
        roll_out(teacher, denoiser, solver, noise, condition, PATHS[-1], SOLVER_STEPS).save(path)

    path = made_once(options.out / "trajectories.safetensors", accelerator, make)
    return Trajectories.load(path).to(accelerator.device)


def load_or_start_student(
    teacher: UNet2DModel,
    denoiser: ClassConditional,
    trajectories: Trajectories,
    options: argparse.Namespace,
    accelerator: Accelerator,
) -> UNet2DModel:
    """A student that jumps to where the teacher's ways end: sharp already, and as good as nowhere better than it."""

    def make(folder: Path) -> None:
        student = copy.deepcopy(teacher).train().requires_grad_(True)
        with progress_bar("start", options.start_iterations) as bar:
            follow(student, denoiser, trajectories, options.start_iterations, on_progress=lambda i, loss: bar.update())
        student.save_pretrained(folder)

    folder = made_once(options.out / "start", accelerator, make)
    return UNet2DModel.from_pretrained(folder).to(accelerator.device)


def progress_bar(name: str, total: int, **options: Any) -> tqdm:
    """On the standard output, like the table at the end."""
    return tqdm(total=total, desc=f"{name:8}", file=sys.stdout, **options)


def run(distillation: Distillation, options: argparse.Namespace) -> bool:
    """Distil, with a progress bar and a log line for every step. Returns False after Ctrl-C or SIGTERM."""
    main_process = distillation.accelerator.is_main_process
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        advloss.open_step_log(options.out / "log.jsonl", distillation.iteration)
        if main_process
        else nullcontext() as log,
        progress_bar("student", options.iterations, initial=distillation.iteration, disable=not main_process) as bar,
    ):

        def on_progress(progress: Progress) -> None:
            if log is not None:
                numbers = progress.as_dict()
                about = {"about": distillation.adversary.describe()} if progress.iteration == 1 else {}
                log.write(json.dumps({**numbers, **about}) + "\n")
                bar.update()
                bar.set_postfix(real=f"{numbers['discriminator/real_accuracy']:.2f}", refresh=False)

        return distillation.run(
            options.iterations, on_progress, checkpoints=options.out / "checkpoints", save_every=options.save_every
        )


def finish(distillation: Distillation, data: digits.Digits, options: argparse.Namespace, seconds: float) -> None:
    """Save the student, measure and draw."""
    student = distillation.averaged_student()
    if options.towards_start:
        step_back(student, UNet2DModel.from_pretrained(options.out / "start"), options.towards_start)
    student.save_pretrained(options.out / "student" / "unet")
    digits.student_scheduler().save_pretrained(options.out / "student" / "scheduler")

    found = digits.compare(data, distillation.denoiser, distillation.teacher, student, options.samples, options.seed)
    rows = ("teacher, 50 steps", "teacher, 1 step", "student, 1 step", "student, 2 steps", "student, 4 steps")
    panels = {row: (found.samples[row], found.labels) for row in rows}
    digits.picture(panels, options.out / "samples.png", "the same noise and classes in every panel")
    metrics: dict[str, Any] = {name: figures.as_dict() for name, figures in found.figures.items()}
    metrics["run"] = {"seconds": seconds, **{name: str(value) for name, value in vars(options).items()}}
    (options.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(digits.table(found.figures))
    print(f"everything is in {options.out}; training took {seconds:.0f} s")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=Path("runs/turbo"), help="folder for everything (default: %(default)s)"
    )
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint in --out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--method", choices=("default", "add"), default="default", help="which combination to distil with"
    )
    parser.add_argument("--iterations", type=int, default=3200, help="of distillation (default: %(default)s)")
    parser.add_argument("--teacher-iterations", type=int, default=1200, help="of the teacher (default: %(default)s)")
    parser.add_argument("--trajectories", type=int, default=4000, help="that the teacher makes (default: %(default)s)")
    parser.add_argument(
        "--start-iterations", type=int, default=700, help="on the teacher's trajectories (default: %(default)s)"
    )
    parser.add_argument("--lr", type=float, default=2e-4, help="of the student (default: %(default)s)")
    parser.add_argument("--distillation-weight", type=float, help="of the teacher's term (default: 0; add: 2.5)")
    parser.add_argument(
        "--towards-start", type=float, help="share of the way back to the start, in the end (default: 0.35; add: 0)"
    )
    parser.add_argument("--backbone", default="test_vit", help="timm model for --method add (default: %(default)s)")
    parser.add_argument("--pretrained", action="store_true", help="load the backbone's weights (needs a network)")
    parser.add_argument(
        "--samples", type=int, default=2000, help="for each row of the evaluation (default: %(default)s)"
    )
    parser.add_argument("--save-every", type=int, default=200, help="iterations between checkpoints")
    parser.add_argument("--cpu", action="store_true", help="do not use an accelerator")
    options = parser.parse_args()
    if options.distillation_weight is None:
        options.distillation_weight = 2.5 if options.method == "add" else 0.0
    if options.towards_start is None:
        options.towards_start = 0.0 if options.method == "add" else 0.35
    if not 0 <= options.towards_start <= (0 if options.method == "add" else 1):
        parser.error(
            "--towards-start must be from 0 to 1, and 0 with --method add, which starts as a copy of the teacher"
        )
    for name in ("iterations", "teacher_iterations", "trajectories", "start_iterations", "samples", "save_every"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if not 0 < options.lr < math.inf:
        parser.error("--lr must be a number above 0")
    for name in ("samples", "trajectories"):
        if getattr(options, name) % 10:
            parser.error(f"--{name} must be a multiple of 10, as many of each digit")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (advloss.AdvlossError, OSError) as error:
        sys.exit(f"distill_turbo.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
