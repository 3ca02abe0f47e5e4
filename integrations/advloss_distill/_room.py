"""Is there room on the disk, for all that a run will write?"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Iterable
from pathlib import Path as File
from typing import Any

from torch import Tensor, nn

from advloss import OptionError
from advloss_distill._distill import Distillation
from advloss_distill._family import Family
from advloss_distill._simulation import Conditions

MARGIN = 1.1  # beside the weights there are samples on their way, configurations, tokenizers, file systems' own
MOMENTS = 2  # Adam's


def check_disk(out: File, distillation: Distillation, pipeline: Any, checkpoints: str = "checkpoints") -> None:
    """Raise OptionError unless `out` has room for two checkpoints, or for one and the outcome.

    A checkpoint goes when the next one is whole. One that is there already is counted as room.

    Args:
        pipeline: the teacher's; the outcome is all of it with the student in its place.
        checkpoints: their folder in `out`.
    """
    one, outcome = checkpoint_size(distillation), _outcome_size(distillation, pipeline)
    there = sum(file.stat().st_size for file in (out / checkpoints).glob("step-*/*") if file.is_file())
    needed = one + max(one, outcome)
    check_free(
        out, needed - there, f" (a checkpoint takes {_gigabytes(one)}, the student's pipeline {_gigabytes(outcome)})"
    )


def check_free(folder: File, needed: float, what: str = "") -> None:
    """Raise OptionError unless so many bytes, and a tenth more, are free on the disk of `folder`.

    Args:
        what: they are for, in parentheses.
    """
    needed, free = needed * MARGIN, shutil.disk_usage(_home(folder)).free
    if needed > free:
        raise OptionError(
            f"{folder} needs {_gigabytes(needed)}, and {_gigabytes(free)} are free on its disk{what}: make room, or write elsewhere"
        )


def check_file(path: File, family: Family, told: Conditions, count: int) -> None:
    """Raise OptionError unless `LatentData` of `count` samples can be written to `path`, before hours are spent on them.

    Args:
        told: conditions of one sample, as all others' in size.
    """
    if path.is_dir():
        raise OptionError(f"{path} is a folder: give a file in it, such as {path / 'data.safetensors'}")
    home = _home(path.parent)
    if not (home.is_dir() and os.access(home, os.W_OK)):
        raise OptionError(f"{path} cannot be written: {home} is no folder, or one that you may not write to")
    sample = 4 * math.prod(family.shape) + _size(told.values())
    check_free(path, count * sample, f" ({count} samples of {sample / 1e6:.3g} MB)")


def checkpoint_size(distillation: Distillation) -> int:
    """Bytes of one checkpoint: the student, its average and moments, the adversary's discriminator with its moments."""
    student = distillation.accelerator.unwrap_model(distillation.student)
    frozen = _size(parameter for parameter in student.parameters() if not parameter.requires_grad)  # not kept
    total = weights_size(student) - frozen + _size(distillation.ema.shadow_params) + _moments(distillation.optimizer)
    if distillation.adversary is not None:
        total += weights_size(distillation.adversary.discriminator) + _moments(distillation.adversary.optimizer)
    return total


def weights_size(module: nn.Module) -> int:
    """Bytes of what the state of a network holds."""
    return _size(value for value in module.state_dict().values() if isinstance(value, Tensor))


def _outcome_size(distillation: Distillation, pipeline: Any) -> int:
    student, teacher = distillation.accelerator.unwrap_model(distillation.student), distillation.teacher
    parts = [part for part in pipeline.components.values() if isinstance(part, nn.Module) and part is not teacher]
    return sum(map(weights_size, [student, *parts]))


def _moments(optimizer: Any) -> int:
    return MOMENTS * _size(parameter for group in optimizer.param_groups for parameter in group["params"])


def _home(path: File) -> File:
    """What is there already of a path."""
    return next(parent for parent in (path.absolute(), *path.absolute().parents) if parent.exists())


def _size(tensors: Iterable[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)  # of a sharded one, all of it


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"
