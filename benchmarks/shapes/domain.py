"""What all methods start from: trained once, kept in a folder, and loaded again."""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor, nn

from advloss import load_state, save_state
from advloss_distill import LatentData, family_of, follow, roll_out, sample, sampling_paths, student_scheduler
from benchmarks.shapes.data import PROMPTS, Images, embeddings, render
from benchmarks.shapes.judge import Evaluation, Figures, Judge, train_judge
from benchmarks.shapes.models import noise_levels, pipeline_of, show, train_teacher, train_vae, unet
from benchmarks.shapes.sizes import Sizes

STEPS = (1, 2, 4)
BATCH = 180  # without gradients


class Domain:
    """Data, teacher, where students start, and the judge.

    Attributes:
        data: latents of the training images, with their prompts.
        pipeline, family: the teacher's.
        start: a student that has followed the teacher's trajectories.
        rows: figures of the real images and of the teacher, by name.
    """

    def __init__(self, folder: Path, sizes: Sizes) -> None:
        self.sizes = sizes
        folder.mkdir(parents=True, exist_ok=True)
        _only_of(sizes, folder / "sizes.json")
        vae = _model_once(AutoencoderKL, folder / "vae", lambda: train_vae(render(sizes.images, 0), sizes))
        self.pipeline = pipeline_of(vae, unet(sizes))
        self.family = family_of(self.pipeline)
        kept = _once(folder / "latents.safetensors", self._latents)
        self.data = LatentData(kept["latents"], {"prompt_embeds": embeddings(kept["labels"])})
        judge = Judge()
        judge.load_state_dict(_once(folder / "judge.safetensors", self._judge))
        self.evaluation = Evaluation(judge.eval(), kept["held_out"])
        self.pipeline.unet = _model_once(
            UNet2DConditionModel, folder / "teacher", lambda: train_teacher(self.data, sizes)
        )
        self.start: nn.Module = _model_once(UNet2DConditionModel, folder / "start", self._start)
        if not (folder / "rows.json").exists():
            rows = {name: dataclasses.asdict(figures) for name, figures in self._compare(kept).items()}
            (folder / "rows.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        rows = json.loads((folder / "rows.json").read_text(encoding="utf-8"))
        self.rows = {name: Figures(**figures) for name, figures in rows.items()}

    @property
    def teacher(self) -> Any:
        """The UNet."""
        return self.pipeline.unet

    def samples(
        self, network: nn.Module, scheduler: Any, steps: int, seed: int = 0, count: int | None = None
    ) -> Tensor:
        """Images, as many of each prompt, from the same noise for every network; the first `count` of them."""
        begins, between = (torch.Generator().manual_seed(2 * seed + part) for part in (0, 1))
        parts = []
        for labels in self.labels[:count].split(BATCH):
            noise = torch.randn(len(labels), *self.family.shape, generator=begins)
            told = {"prompt_embeds": embeddings(labels)}
            parts.append(self._decode(sample(network, self.family, scheduler, noise, told, steps, between)))
        return torch.cat(parts)

    def judged(self, network: nn.Module, scheduler: Any, steps: Sequence[int], name: str) -> dict[str, Figures]:
        """Rows of `network` at each number of steps."""
        return {
            f"{name}, {number}": self.evaluation(self.samples(network, scheduler, number), self.labels)
            for number in steps
        }

    @property
    def labels(self) -> Tensor:
        """Of samples."""
        return torch.arange(self.sizes.samples) % len(PROMPTS)

    def _latents(self) -> dict[str, Tensor]:
        """Training images in latents; held-out ones as the VAE shows them, which no sampler of latents can pass."""
        training = render(self.sizes.images, 0)
        return {
            "latents": self._encode(training.images),
            "labels": training.labels,
            "held_out": self._decode(self._encode(self._held_out().images)).clamp(-1, 1),
        }

    def _held_out(self) -> Images:
        return render(self.sizes.samples, 1, held_out=True)

    def _judge(self) -> dict[str, Tensor]:
        return train_judge(render(self.sizes.images, 2), self.sizes.classifier_steps).state_dict()

    def _start(self) -> Any:
        draws = torch.Generator().manual_seed(0)
        labels = torch.arange(self.sizes.trajectories) % len(PROMPTS)
        noise = torch.randn(len(labels), *self.family.shape, generator=draws)
        (path,) = sampling_paths(student_scheduler(self.family), [4])
        timesteps, solver = [int(t) for t in path], noise_levels()
        told = {"prompt_embeds": embeddings(labels)}
        trajectories = roll_out(
            self.teacher, self.family, solver, noise, told, timesteps, self.sizes.solver_steps, BATCH
        )
        torch.manual_seed(0)
        student = copy.deepcopy(self.teacher).train().requires_grad_(True)
        follow(
            student,
            self.family,
            trajectories,
            self.sizes.start_iterations,
            self.sizes.batch_size,
            on_progress=lambda i, loss: show("start", i, {"loss": float(loss)}),
        )
        return student

    def _compare(self, kept: dict[str, Tensor]) -> dict[str, Figures]:
        """Rows of the data and the teacher."""
        held_out = self._held_out()
        floor = self.evaluation(self._decode(kept["latents"]), kept["labels"])
        return {
            "training images": floor,
            "held-out images without the VAE": self.evaluation(held_out.images, held_out.labels),
            **self.judged(self.teacher, noise_levels(), (self.sizes.teacher_steps, *reversed(STEPS)), "teacher"),
            **self.judged(self.start, student_scheduler(self.family), STEPS, "start"),
        }

    @torch.no_grad()
    def _encode(self, images: Tensor) -> Tensor:
        torch.manual_seed(0)
        return torch.cat([self.family.to_latents(self.pipeline.vae, part) for part in images.split(BATCH)])

    @torch.no_grad()
    def _decode(self, latents: Tensor) -> Tensor:
        return torch.cat([self.family.to_images(self.pipeline.vae, part) for part in latents.split(BATCH)])


def _only_of(sizes: Sizes, path: Path) -> None:
    """What is kept beside `path` was made at these sizes."""
    ours = json.loads(json.dumps(dataclasses.asdict(sizes)))
    if not path.exists() and not (path.parent / "vae").exists():
        path.write_text(json.dumps(ours, indent=1) + "\n", encoding="utf-8")
    theirs = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if differ := {name: (theirs.get(name), size) for name, size in ours.items() if theirs.get(name) != size}:
        found = ", ".join(f"{name}: {there} there, {here} now" for name, (there, here) in differ.items())
        sys.exit(f"{path.parent} was made at other sizes ({found}): give another folder as --out, or delete it")


def _once(path: Path, make: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    if not path.exists():
        save_state({name: value.contiguous() for name, value in make().items()}, path)
    return load_state(path)


def _model_once(kind: Any, folder: Path, make: Callable[[], Any]) -> Any:
    if not folder.exists():
        partial = folder.with_name(f"partial_{folder.name}")
        make().save_pretrained(partial)
        partial.rename(folder)
    return kind.from_pretrained(folder).eval().requires_grad_(False)
