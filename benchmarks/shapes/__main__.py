"""Distil, and print how far each sampler is from held-out images."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from benchmarks._harness import Settings
from benchmarks._markdown import table
from benchmarks._results import circumstances
from benchmarks._results import save as keep
from benchmarks.shapes.domain import Domain
from benchmarks.shapes.judge import Figures
from benchmarks.shapes.methods import RUNS, run
from benchmarks.shapes.models import noise_levels, show
from benchmarks.shapes.outcomes import PICTURED, of_average, of_run, save
from benchmarks.shapes.report import report
from benchmarks.shapes.sizes import SHORT, Sizes

COLUMNS = ("sampler, steps", "features", "/ teacher", "pixels", "/ teacher", "colour", "shape")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.shapes", description=__doc__)
    parser.add_argument(
        "methods", nargs="*", metavar="METHOD", help=f"to run; none: a table of what --out holds: {', '.join(RUNS)}"
    )
    parser.add_argument("--iterations", type=int, help="in place of the method's own")
    parser.add_argument("--seed", type=int, default=0, help="of the distillation; the teacher has one")
    parser.add_argument(
        "--average", action="store_true", help="in place of training: average the students that --out has of all seeds"
    )
    parser.add_argument("--short", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--out", type=Path, default=Path("runs/shapes"))
    parser.add_argument("--json", type=Path, help="file to keep the table of all runs in --out in")
    options = parser.parse_args()
    if unknown := [method for method in options.methods if method not in RUNS]:
        parser.error(f"no method is called {', '.join(unknown)}; there are {', '.join(RUNS)}")
    torch.set_flush_denormal(True)
    domain = Domain(options.out, SHORT if options.short else Sizes())
    rows = dict(domain.rows)
    if not (picture := options.out / "teacher.png").exists():
        save(domain.samples(domain.teacher, noise_levels(), domain.sizes.teacher_steps, count=PICTURED), picture)
    for method in options.methods:
        if options.average:
            rows |= of_average(method, domain, options.out)
            continue
        outcome = run(method, domain, options.seed, 2 if options.short else options.iterations, show)
        rows |= of_run(method, options.seed, outcome, domain, options.out)
    print("\n".join(table(COLUMNS, lines(rows, f"teacher, {domain.sizes.teacher_steps}"))))
    every = report(options.out, domain.rows, domain.sizes.teacher_steps)
    print(f"\nEvery run in {options.out}, features, pixels:\n")
    print("\n".join(table(every.columns, every.rows)))
    if options.json:
        keep(options.json, "shapes", [every], circumstances(Settings(short=options.short)))


def lines(rows: dict[str, Figures], reference: str) -> list[list[str | float]]:
    """Of the table: distances, and over those of the row `reference`."""
    there = rows[reference]
    return [
        [name, f.features, f.features / there.features, f.pixels, f.pixels / there.pixels, f.colour, f.shape]
        for name, f in rows.items()
    ]


if __name__ == "__main__":
    main()
