"""Images, their reconstructions, and the difference, side by side."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from advloss import InputError

LETTER = 7  # pixels of a title's letters at most, on average
GAIN = 4.0  # of the difference: what is visible in the reconstruction must be visible there


def save_comparison(
    path: Path | str, images: Tensor, reconstructions: Mapping[str, Tensor], enlarge: float = 1.0
) -> None:
    """Write a picture with a row for each image and columns: the image, each reconstruction, each difference.

    Differences are four times as large, around grey.

    Args:
        path: its folder is made.
        images: `(N, 3, H, W)` in [-1, 1].
        reconstructions: the same, by title.
        enlarge: width of a pixel in the picture, at least: columns are as wide as their titles.

    Raises:
        InputError: a reconstruction of another shape.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = {"input": images}
    for title, made in reconstructions.items():
        if made.shape != images.shape:
            raise InputError(f"{title!r} has shape {tuple(made.shape)}, the images {tuple(images.shape)}")
        columns[title] = made
    for title, made in reconstructions.items():
        columns[f"{title},\ndifference x {GAIN:g}"] = (made - images) * GAIN / 2
    count, (height, width), dpi = len(images), images.shape[-2:], 100
    longest = max(len(line) for title in columns for line in title.splitlines())
    enlarge = max(enlarge, math.ceil(LETTER * longest / width))
    size = len(columns) * width * enlarge / dpi, (count * height * enlarge + 40) / dpi
    figure = Figure(figsize=size, dpi=dpi)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(0.004, 0.004, 0.996, count * height * enlarge / (count * height * enlarge + 40), 0.02, 0.02)
    grid = figure.subplots(count, len(columns), squeeze=False)
    for column, (title, batch) in enumerate(columns.items()):
        for row, image in enumerate(as_bytes(batch)):
            grid[row][column].imshow(image.permute(1, 2, 0).numpy(), interpolation="nearest")
            grid[row][column].axis("off")
        grid[0][column].set_title(title, fontsize=8)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        figure.savefig(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def as_bytes(images: Tensor) -> Tensor:
    """[-1, 1] to uint8, on the CPU."""
    return ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
