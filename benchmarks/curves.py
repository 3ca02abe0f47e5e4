"""Curves of several runs of one example beside each other, as docs/pipelines.md shows them:

python -m benchmarks.curves docs/curves.png "healthy=runs/turbo" "discriminator too slow=runs/slow"
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

from advloss import RunLog, read_log

WINDOW = 40  # logged steps in a median
PANELS = {  # what `advloss doctor` reads, with what it takes for healthy
    "accuracy on real samples": ("real_accuracy", (0.5, 0.9)),
    "logits: real minus fake": ("gap", None),
    "gradient norm": ("grad_norm", None),
    "diversity within a class": ("signals/class_diversity", (0.7, 1.1)),
}


def curve(log: RunLog, name: str) -> tuple[list[float], list[float]]:
    """Steps, and running medians of a column."""
    if name == "gap":
        fake = dict(log.values("fake_logits"))
        found = [(step, real - fake[step]) for step, real in log.values("real_logits") if step in fake]
    else:
        found = log.values(name)
    width = max(1, min(WINDOW, len(found) // 20))
    parts = [found[i : i + width] for i in range(0, len(found) - width + 1, max(1, width // 4))]
    return [part[-1][0] for part in parts], [statistics.median(value for _, value in part) for part in parts]


def draw(path: Path, runs: dict[str, RunLog]) -> None:
    """A panel for each of `PANELS`, a line for each run."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 3.2), dpi=110, layout="constrained")
    axes = figure.subplots(1, len(PANELS))
    for axis, (title, (name, healthy)) in zip(axes, PANELS.items()):
        if healthy:
            axis.axhspan(*healthy, color="0.92", zorder=0)
        for run, log in runs.items():
            axis.plot(*curve(log, name), label=run, linewidth=1.4)
        if name == "gap":
            axis.set_yscale("symlog", linthresh=0.1)
        if name == "grad_norm":
            axis.set_yscale("log")
        axis.set_title(title, fontsize=9)
        axis.set_xlabel("iteration", fontsize=8)
        axis.tick_params(labelsize=7)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(runs), fontsize=8)
    figure.savefig(path)


if __name__ == "__main__":
    picture, *named = sys.argv[1:]
    draw(Path(picture), {name: read_log(Path(folder)) for name, _, folder in (run.rpartition("=") for run in named)})
