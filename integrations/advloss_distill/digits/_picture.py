"""Samples side by side, class by class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import matplotlib
import torch
from torch import Tensor

matplotlib.use("Agg")

from matplotlib import pyplot as plt

EACH = 6
CLASSES = 10


def picture(panels: Mapping[str, tuple[Tensor, Tensor]], path: Path, title: str) -> None:
    """Draw panels of images `(N, 1, 8, 8)` in [-1, 1] with labels `(N,)`: a column a digit, a few samples of each."""
    figure, axes = plt.subplots(1, len(panels), figsize=(2.6 * len(panels), 2.2), squeeze=False)
    for axis, (name, (images, labels)) in zip(axes[0], panels.items()):
        axis.imshow(_grid(images, labels).cpu().numpy(), cmap="gray_r", vmin=-1, vmax=1, interpolation="nearest")
        axis.set_title(name, fontsize=9)
        axis.set_axis_off()
    figure.text(0.5, 0.02, title, ha="center", fontsize=8)
    figure.tight_layout(pad=0.4, rect=(0, 0.07, 1, 1))
    figure.savefig(path, dpi=200)
    plt.close(figure)


def _grid(images: Tensor, labels: Tensor) -> Tensor:
    """One image: a row for each of the first samples of every class, a column for each class."""
    columns = [images[labels == c][:EACH, 0].clamp(-1, 1) for c in range(CLASSES)]
    padded = torch.nn.functional.pad(torch.stack(columns, 1), (1, 1, 1, 1), value=-1.0)
    rows, count, height, width = padded.shape
    return padded.permute(0, 2, 1, 3).reshape(rows * height, count * width)
