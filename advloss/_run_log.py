"""A run's log, read back: JSON lines with what reports said. Imports no torch."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from advloss.errors import LogError

_ALWAYS = ("real_logits", "fake_logits", "real_accuracy", "fake_accuracy")
_STEPS = ("step", "iteration")
_MOST = 8192


@dataclass
class RunLog:
    """Steps and what was logged in them.

    Attributes:
        name: where it was read.
        steps: numbers of the steps, rising.
        columns: by `Report.as_dict`'s names, and ``generator_loss``: a value for each step; None where nothing was
            logged, NaN where it was not finite.
        about: what the run was built from (`Adversary.describe`); empty when the log does not say.
        notes: what had to be passed over to read it.
    """

    name: str = "run"
    steps: list[float] = field(default_factory=list)
    columns: dict[str, list[float | None]] = field(default_factory=dict)
    about: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, step: float, numbers: Mapping[str, float | None]) -> None:
        """Append a step."""
        for name in numbers:
            self.columns.setdefault(name, [None] * len(self.steps))
        self.steps.append(step)
        for name, column in self.columns.items():
            column.append(numbers.get(name))

    def thin(self) -> None:
        """Let every second step go. What is measured every 17 steps is so in what stays, too."""
        self.steps = self.steps[::2]
        self.columns = {name: column[::2] for name, column in self.columns.items()}

    def values(self, name: str, start: float = 0.0, end: float = 1.0) -> list[tuple[float, float]]:
        """Steps with their finite values, from share `start` to share `end` of the steps."""
        low, high = (self.steps[0] + share * (self.steps[-1] - self.steps[0]) for share in (start, end))
        column = self.columns.get(name, [])
        rows = zip(self.steps, column)
        return [(s, v) for s, v in rows if low <= s <= high and v is not None and math.isfinite(v)]

    def median(self, name: str, start: float = 0.75, end: float = 1.0) -> float | None:
        """The median value in a part of the run, its last quarter unless said; None without a finite one."""
        values = [value for _, value in self.values(name, start, end)]
        return statistics.median(values) if values else None


def read_log(path: Path) -> RunLog:
    """Read a JSON-lines log, or the ``log.jsonl`` in a folder; of a long one every second, fourth, ... step.

    Its lines are objects with a step and the names of `Report.as_dict`, with any prefix (``discriminator/loss``). A last
    line that was cut off is passed over with a note; so is what a restarted run took again. A run without a discriminator
    says so in its first line: ``"about": {"discriminator": null}``.

    Raises:
        LogError: no such file, no step in it, or lines that no log of ours has.
    """
    file = path / "log.jsonl" if path.is_dir() else path
    try:
        with file.open(encoding="utf-8") as lines:
            return _read(file, lines)
    except OSError as error:
        raise LogError(f"{file} cannot be read ({error.strerror}); give a log or the folder of a run") from error
    except UnicodeDecodeError as error:
        raise LogError(f"{file} is no text, so no log of advloss; give a file of JSON lines") from error


def _read(file: Path, lines: Iterable[str]) -> RunLog:
    log, prefix, others, stride, count = RunLog(str(file)), None, dict[str, None](), 1, 0
    for number, entry in _entries(file, lines, log.notes):
        if isinstance(entry.get("about"), dict):
            log.about = entry["about"]
        if prefix is None and (prefix := _prefix(entry)) is None:  # of before the discriminator's start step
            others.update(dict.fromkeys(list(entry)[:6]))
            continue
        named = (_number(entry[name]) for name in (*_STEPS, f"{prefix}step") if name in entry)
        step = next((number for number in named if number is not None), math.nan)
        if not math.isfinite(step):
            raise LogError(f"{file}, line {number}: it has no number under 'step'; log the step beside the report")
        if log.steps and step <= log.steps[-1]:
            log.notes.append(
                f"line {number} goes back from step {log.steps[-1]:g} to {step:g}: only what follows was read"
            )
            log, stride, count = RunLog(log.name, about=log.about, notes=log.notes), 1, 0
        if count % stride == 0:
            log.add(step, dict(_numbers(entry, prefix)))
        count += 1
        if len(log.steps) == _MOST:
            log.thin()
            stride *= 2
    if prefix is None and not others:
        raise LogError(f"{file} holds no step yet; a log has a JSON line for each step, from Report.as_dict()")
    if prefix is None and log.about.get("discriminator", "") is None:
        raise LogError(
            f"{file} is of a run without a discriminator. The doctor looks at the game of two players; here there is one, "
            "and its loss says how it does"
        )
    if prefix is None:
        raise LogError(
            f"{file} has {', '.join(list(others)[:6])}, and no real_accuracy, fake_accuracy, real_logits and fake_logits: "
            "it is another tool's log, or of a run without a discriminator, or whose discriminator had not started. Log report.as_dict()"
        )
    return log


def _entries(file: Path, lines: Iterable[str], notes: list[str]) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number > 1 and not line.endswith("\n"):
                notes.append(f"the last line (line {number}) is cut off and was passed over")
                return
            raise LogError(
                f"{file}, line {number} is no JSON: {line[:40].rstrip()!r}; a log of advloss has an object in each line"
            ) from error
        if not isinstance(entry, dict):
            raise LogError(
                f"{file}, line {number} holds {line[:40].rstrip()!r}; a log of advloss has an object in each line"
            )
        yield number, entry


def _prefix(entry: Mapping[str, Any]) -> str | None:
    """What stands before a report's names; None where there is none."""
    for name in entry:
        prefix = name.removesuffix("real_accuracy")
        if prefix != name and all(f"{prefix}{other}" in entry for other in _ALWAYS):
            return prefix
    return None


def _numbers(entry: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    for name, value in entry.items():
        if name.startswith(prefix) and name not in _STEPS and (number := _number(value)) is not None:
            yield name[len(prefix) :], number
    for name in ("generator/loss", "generator_loss", "adversarial"):
        if (number := _number(entry.get(name, ""))) is not None:
            yield "generator_loss", number
            return


def _number(value: Any) -> float | None:
    """A number of JSON; NaN for null, which stands for what was not finite; None for anything else."""
    if value is None:
        return math.nan
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
