"""The lessons by name."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import torch

from advloss import OptionError
from advloss_gan.lessons import _backwards, _digit_lessons, _points
from advloss_gan.lessons._lesson import Lesson

_MAKE: dict[str, Callable[[float, Path], Lesson]] = {
    "collapse": _points.collapse,
    "losses": _points.losses,
    "minibatch": _points.minibatch,
    "conditional": _digit_lessons.conditional,
    "ada": _digit_lessons.small_data,
    "spectral-norm": _digit_lessons.spectral,
    "r3gan": _points.recipe,
    "inversion": _backwards.inversion,
}
LESSONS = {name: (make.__doc__ or "").splitlines()[0] for name, make in _MAKE.items()}
"""What each lesson is about, by name."""


def run_lesson(name: str, *, seed: int = 0, scale: float = 1.0, folder: Path | None = None) -> Lesson:
    """Train what the lesson compares, and say whether its known outcome is seen.

    Args:
        name: one of `LESSONS`.
        seed: of torch's global generator, whose state is left as it was.
        scale: factor of the number of steps; 1 takes some minutes on one core.
        folder: gets the logs, and the picture of those that draw one; default a temporary one.

    Raises:
        OptionError: there is no such lesson, or the scale is not above 0.
    """
    if name not in _MAKE:
        raise OptionError(f"lesson {name!r}: there are {', '.join(_MAKE)}")
    if not scale > 0:
        raise OptionError(f"scale={scale!r}: give a number above 0, such as 0.1")
    with torch.random.fork_rng(), tempfile.TemporaryDirectory() as temporary:
        torch.manual_seed(seed)
        return _MAKE[name](scale, folder or Path(temporary))
