"""What is left after training: a folder that plain diffusers opens, without advloss."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path as File
from typing import Any

from torch import nn

from advloss import OptionError
from advloss_distill._card import ADAPTER, Card
from advloss_distill._family import Family
from advloss_distill._lora import has_lora, lora_state, merge_lora
from advloss_distill._room import check_free, weights_size
from advloss_distill._simulation import SamplingPath
from advloss_distill._student_scheduler import sampling_paths


def save_pipeline(
    folder: File,
    student: nn.Module,
    family: Family,
    pipeline: Any,
    scheduler: Any,
    paths: Sequence[SamplingPath],
    card: Card,
) -> None:
    """Write the teacher's pipeline with `student` and `scheduler` in their places, and a model card.

    ``DiffusionPipeline.from_pretrained(folder)(..., num_inference_steps=1, guidance_scale=0)`` samples from it. An
    adapter is merged into the weights (`save_adapter` writes it alone). The folder is complete or is not there; one
    that is there is replaced.

    Args:
        student: for example `Distillation.averaged_student()`; its configuration is changed (`Family.resized`), and an adapter
            merged.
        pipeline: the teacher's. It is not changed.
        scheduler: of the student.
        paths: that the student was trained on; the saved scheduler must visit them.

    Raises:
        OptionError: it does not, or there is too little room on the disk.
    """
    if has_lora(student):
        merge_lora(student)
    family.resized(student)
    outcome = copy.copy(pipeline)
    outcome.register_modules(**{family.part: student, "scheduler": scheduler})
    check_room(folder, *(part for part in outcome.components.values() if isinstance(part, nn.Module)))
    with _new_folder(folder) as new:
        outcome.save_pretrained(new)
        _check_paths(type(scheduler).from_pretrained(new, subfolder="scheduler"), paths)
        (new / "README.md").write_text(card.text(type(pipeline).__name__, family, paths), encoding="utf-8")


def save_adapter(
    folder: File,
    student: nn.Module,
    family: Family,
    pipeline: Any,
    scheduler: Any,
    paths: Sequence[SamplingPath],
    card: Card,
) -> None:
    """Write a student's adapter as diffusers loads it, the scheduler beside it, and a model card.

    ``pipeline.load_lora_weights(folder)`` takes it up, in the teacher's pipeline with this scheduler.

    Raises:
        OptionError: the student has none, or pipelines of this class load none.
    """
    if not has_lora(student):
        raise OptionError("this student has no adapter (add_lora puts one there); use save_pipeline")
    check_adapter(pipeline)
    with _new_folder(folder) as new:
        pipeline.save_lora_weights(new, weight_name=ADAPTER, **{f"{family.part}_lora_layers": lora_state(student)})
        scheduler.save_pretrained(new / "scheduler")
        _check_paths(type(scheduler).from_pretrained(new, subfolder="scheduler"), paths)
        text = card.text(type(pipeline).__name__, family, paths, adapter=type(scheduler).__name__)
        (new / "README.md").write_text(text, encoding="utf-8")


def check_adapter(pipeline: Any) -> None:
    """Raise OptionError where `save_adapter` could not write an adapter that this pipeline loads."""
    if not hasattr(pipeline, "save_lora_weights"):
        raise OptionError(
            f"a {type(pipeline).__name__} loads no adapters; save_pipeline merges it into the weights (leave out --adapter)"
        )


def check_room(folder: File, *modules: nn.Module, copies: float = 1) -> None:
    """Raise OptionError when the disk of `folder` has no room for `copies` of all these weights."""
    check_free(folder, sum(map(weights_size, modules)) * copies)


def _check_paths(scheduler: Any, paths: Sequence[SamplingPath]) -> None:
    visited = sampling_paths(scheduler, [len(path) for path in paths])
    if visited != tuple(paths):
        raise OptionError(
            f"the saved scheduler visits {visited}, and training visited {tuple(paths)}: train on sampling_paths(scheduler)"
        )


@contextmanager
def _new_folder(folder: File) -> Iterator[File]:
    """A folder beside `folder` that takes its place when all went well, and goes when it did not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as scratch:
        new = File(scratch) / "new"
        new.mkdir()
        yield new
        if folder.exists():
            folder.replace(File(scratch) / "old")
        new.replace(folder)
