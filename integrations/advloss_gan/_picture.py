"""A row of scatter plots, in which a missing mode is seen at once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from advloss_gan._files import new_file
from advloss_gan._mixture import GaussianMixture

REAL, FAKE, MARK = "#8a94a6", "#d1495b", "#1d2733"


def save_picture(path: Path, mixture: GaussianMixture, snapshots: Mapping[str, Tensor]) -> None:
    """Draw samples `(N, 1)` or `(N, 2)` beside those of `mixture`, a panel for each title: in the plane as points with the
    modes as crosses, on a line as histograms.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    panels = {"real": mixture.sample(1000), **snapshots}
    figure = Figure(figsize=(2.6 * len(panels), 2.9), layout="constrained")
    FigureCanvasAgg(figure)
    reach = 1.25 * float(mixture.centers.abs().max()) + 2 * mixture.std
    for axes, (title, samples) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items()):
        if mixture.centers.shape[1] == 1:
            color = REAL if title == "real" else FAKE
            axes.hist(samples.detach().cpu().flatten().tolist(), bins=80, range=(-reach, reach), color=color)
            axes.set(title=title, xlim=(-reach, reach), yticks=[])
            continue
        axes.scatter(*mixture.centers.T.tolist(), s=160, marker="+", linewidths=0.8, color=MARK)
        color = REAL if title == "real" else FAKE
        axes.scatter(*samples.detach().cpu().T.tolist(), s=4, alpha=0.5, linewidths=0, color=color)
        axes.set(title=title, xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")
    with new_file(path) as temporary:
        figure.savefig(temporary, dpi=120)
