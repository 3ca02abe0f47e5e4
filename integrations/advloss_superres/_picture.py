"""Images side by side, each with an enlarged window."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from advloss import InputError
from advloss_superres._images import to_bytes

LETTER = 8  # pixels of a title's letters at most, on average


def save_comparison(
    path: Path | str, rows: Sequence[Mapping[str, Tensor]], window: int, *, enlarge: int = 4, dpi: int = 100
) -> None:
    """Write a picture with two rows for each scene: whole images, and below them the same window of each, enlarged.

    The window is the one with the most detail in the last image of the scene. Smaller images, such as the low-resolution
    input, are shown at the size of the last one, pixel by pixel.

    Args:
        path: its folder is made.
        rows: for each scene images `(3, H, W)` in [-1, 1] by title, the truth last; sides that divide the truth's.
        window: side of the enlarged window, in pixels of the truth.
        enlarge: picture pixels for one of the window, at least: columns are as wide as their titles.

    Raises:
        InputError: there are no rows, or sizes that do not fit.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not rows:
        raise InputError("there are no images to draw")
    titles = list(rows[0])
    side = window * max(enlarge, math.ceil(LETTER * max(map(len, titles)) / window))
    heights = [height for row in rows for height in (_shown_height(_truth(row), side), side)]
    width, height, title = len(titles) * side, sum(heights), 24
    figure = Figure(figsize=(width / dpi, (height + title) / dpi), dpi=dpi)
    FigureCanvasAgg(figure)
    figure.subplots_adjust(0, 0, 1, height / (height + title), 0.01, 0.01)
    grid = figure.subplots(len(heights), len(titles), squeeze=False, gridspec_kw={"height_ratios": heights})
    for number, row in enumerate(rows):
        truth = _truth(row)
        top, left = _most_detail(truth, window)
        for column, (name, image) in enumerate(row.items()):
            pixels = to_bytes(_at_size(name, image, truth))
            whole, part = grid[2 * number][column], grid[2 * number + 1][column]
            whole.imshow(pixels.permute(1, 2, 0).numpy(), interpolation="antialiased", aspect="auto")
            outline = [left, left + window, left + window, left, left], [top, top, top + window, top + window, top]
            whole.plot(*outline, color="yellow", linewidth=1)
            crop = pixels[:, top : top + window, left : left + window]
            part.imshow(crop.permute(1, 2, 0).numpy(), interpolation="nearest", aspect="auto")
    for column, name in enumerate(titles):
        grid[0][column].set_title(name, fontsize=9, pad=4)
    for axes in grid.flat:
        axes.axis("off")
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        figure.savefig(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _truth(row: Mapping[str, Tensor]) -> Tensor:
    return list(row.values())[-1]


def _shown_height(image: Tensor, width: int) -> int:
    return round(width * image.shape[1] / image.shape[2])


def _at_size(name: str, image: Tensor, truth: Tensor) -> Tensor:
    factor = truth.shape[1] // image.shape[1]
    if tuple(truth.shape[1:]) != tuple(length * factor for length in image.shape[1:]):
        raise InputError(f"{name!r} has shape {tuple(image.shape)}, the truth {tuple(truth.shape)}")
    return image.repeat_interleave(factor, 1).repeat_interleave(factor, 2)


def _most_detail(image: Tensor, window: int) -> tuple[int, int]:
    """Where the window with the largest energy of differences between neighbours begins."""
    height, width = image.shape[1:]
    if window > min(height, width):
        raise InputError(f"the window of {window} pixels is larger than an image of {width} x {height}")
    grey = image.float().mean(0)
    energy = torch.zeros_like(grey)
    energy[:, 1:] += grey.diff(dim=1).square()
    energy[1:] += grey.diff(dim=0).square()
    sums = torch.nn.functional.avg_pool2d(energy[None], window, max(1, window // 4))[0]
    place = int(sums.argmax())
    return tuple(max(1, window // 4) * n for n in divmod(place, sums.shape[1]))  # type: ignore[return-value]
