"""All runs in a folder in one table: every method and seed, beside the teacher and where students start."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from benchmarks._harness import Table
from benchmarks.shapes.domain import STEPS
from benchmarks.shapes.judge import Figures

COLUMNS = ("", "seconds", "teacher, million samples", *(f"{n} step{'s' if n > 1 else ''}" for n in STEPS))


def report(folder: Path, rows: Mapping[str, Figures], most: int) -> Table:
    """Distances in features, pixels; bold is no farther than the teacher at `most` steps.

    Args:
        folder: of what runs have left, a file for each method and seed.
        rows: of the data and the teacher.
    """
    target = rows[f"teacher, {most}"]
    lines = [
        ["training images", "", "", _cell(rows["training images"], target), "", ""],
        [f"teacher, {most} steps", "", "", _cell(target, target), "", ""],
        *([name, "", "", *_steps(rows, name, target)] for name in ("teacher", "start")),
    ]
    runs: dict[str, list[dict[str, Any]]] = {}
    for path in sorted(folder.glob("*-*.json")):
        runs.setdefault(path.stem.rpartition("-")[0], []).append(
            {"seed": path.stem.rpartition("-")[2], **json.loads(path.read_text(encoding="utf-8"))}
        )
    for method, found in runs.items():
        lines += _lines(method, found, target)
    return Table(
        title=f"Fréchet distances to held-out images in features, pixels; bold is no farther than the teacher at {most} steps",
        columns=COLUMNS,
        rows=lines,
    )


def _lines(method: str, found: list[dict[str, Any]], target: Figures) -> Iterator[list[str]]:
    """One for each seed, their mean, and one for the student that has the average of their weights."""
    seeds = [run for run in found if run["seed"] != "average"]
    for run in seeds:
        yield [f"`{method}`, seed {run['seed']}", *_cost(run), *_steps(_rows(run), method, target)]
    if len(seeds) > 1:
        every = [_rows(run) for run in seeds]
        mean = {
            name: Figures(**{n: statistics.fmean(vars(rows[name])[n] for rows in every) for n in vars(target)})
            for name in every[0]
        }
        yield [f"`{method}`, mean of these", "", "", *_steps(mean, method, target)]
    for run in (run for run in found if run["seed"] == "average"):
        yield [f"`{method}`, average of their weights", *_cost(run), *_steps(_rows(run), method, target)]


def _cost(run: dict[str, Any]) -> tuple[str, str]:
    return f"{run['seconds']:.0f}", f"{run['evaluations']:.3f}"


def _rows(run: dict[str, Any]) -> dict[str, Figures]:
    return {name: Figures(**figures) for name, figures in run["figures"].items()}


def _steps(rows: Mapping[str, Figures], name: str, target: Figures) -> Iterator[str]:
    return (_cell(rows[f"{name}, {steps}"], target) for steps in STEPS)


def _cell(found: Figures, target: Figures) -> str:
    pairs = ((found.features, target.features, 2), (found.pixels, target.pixels, 3))
    return ", ".join(f"**{f:.{digits}f}**" if f <= t else f"{f:.{digits}f}" for f, t, digits in pairs)
