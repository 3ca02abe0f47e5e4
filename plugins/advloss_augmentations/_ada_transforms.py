"""The transforms of adaptive discriminator augmentation, as one sampling matrix and one colour matrix a sample."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

TRANSFORMS = ("blit", "geometry", "color")


def sampling_matrices(images: Tensor, p: Tensor, policy: Sequence[str]) -> Tensor:
    """From where in `images` each pixel is read, `(N, 2, 3)`: pixels from the middle, x before y (appendix B)."""
    draw = Draws(images, p)
    height, width = images.shape[2:]
    matrix = torch.eye(3, dtype=images.dtype, device=images.device).expand(len(images), 3, 3)
    if "blit" in policy:
        flip = draw.maybe(1 - 2 * (draw.uniform() * 2).floor(), 1)
        turns = draw.maybe((draw.uniform() * 4).floor(), 0)
        shifts = draw.maybe((draw.uniform(2) * 2 - 1) / 8, 0)
        matrix = matrix @ _scale(flip, torch.ones_like(flip)) @ _quarter_turns(turns)
        matrix = matrix @ _shift((shifts[0] * width).round(), (shifts[1] * height).round())
    if "geometry" in policy:
        once = 1 - (1 - p).sqrt()  # turned before or after, or both: p that it is at all
        zoom = draw.maybe(torch.exp2(draw.normal() * 0.2), 1)
        before = draw.maybe((draw.uniform() * 2 - 1) * math.pi, 0, once)
        stretch = draw.maybe(torch.exp2(draw.normal() * 0.2), 1)
        after = draw.maybe((draw.uniform() * 2 - 1) * math.pi, 0, once)
        shifts = draw.maybe(draw.normal(2) / 8, 0)
        matrix = matrix @ _scale(zoom, zoom) @ _turn(before.cos(), before.sin())
        matrix = matrix @ _scale(stretch, 1 / stretch) @ _turn(after.cos(), after.sin())
        matrix = matrix @ _shift(shifts[0] * width, shifts[1] * height)
    return matrix[:, :2]


def color_matrices(images: Tensor, p: Tensor) -> Tensor:
    """What becomes of red, green, blue and one, `(N, 3, 4)`: lightness is the direction (1, 1, 1) (appendix B)."""
    draw = Draws(images, p)
    brightness = draw.maybe(draw.normal() * 0.2, 0)
    contrast = draw.maybe(torch.exp2(draw.normal() * 0.5), 1)
    flip = draw.maybe((draw.uniform() * 2).floor(), 0)
    hue = draw.maybe((draw.uniform() * 2 - 1) * math.pi, 0)
    saturation = draw.maybe(torch.exp2(draw.normal()), 1)
    eye = torch.eye(3, dtype=images.dtype, device=images.device)
    grey = torch.full_like(eye, 1 / 3)  # onto (1, 1, 1)
    around = torch.tensor([[0, -1, 1], [1, 0, -1], [-1, 1, 0]], dtype=eye.dtype, device=eye.device) / 3**0.5
    cosine, sine = hue.cos()[:, None, None], hue.sin()[:, None, None]
    turn = grey + (eye - grey) * cosine + around * sine  # Rodrigues' formula
    matrix = (eye - 2 * grey * flip[:, None, None]) * contrast[:, None, None]
    matrix = (grey + (eye - grey) * saturation[:, None, None]) @ turn @ matrix
    return torch.cat([matrix, (matrix.sum(2) * brightness[:, None])[:, :, None]], dim=2)


class Draws:
    """Random numbers `(N,)` for each sample, from torch's global generator."""

    def __init__(self, images: Tensor, p: Tensor) -> None:
        self.count, self.p = len(images), p
        self.options = {"dtype": images.dtype, "device": images.device}

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, self.count, **self.options)  # type: ignore[call-overload]

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, self.count, **self.options)  # type: ignore[call-overload]

    def maybe(self, values: Tensor, neutral: float, p: Tensor | None = None) -> Tensor:
        """`values` with probability p, else `neutral`."""
        return torch.where(self.uniform() < (self.p if p is None else p), values, neutral)


def _rows(*rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """Matrices `(N, 3, 3)` from two rows of entries `(N,)`."""
    zero, one = torch.zeros_like(rows[0][0]), torch.ones_like(rows[0][0])
    return torch.stack([torch.stack(row, dim=1) for row in (*rows, (zero, zero, one))], dim=1)


def _scale(x: Tensor, y: Tensor) -> Tensor:
    zero = torch.zeros_like(x)
    return _rows((1 / x, zero, zero), (zero, 1 / y, zero))


def _turn(cosine: Tensor, sine: Tensor) -> Tensor:
    zero = torch.zeros_like(cosine)
    return _rows((cosine, -sine, zero), (sine, cosine, zero))


def _quarter_turns(turns: Tensor) -> Tensor:
    angle = turns * (math.pi / 2)
    return _turn(angle.cos().round(), angle.sin().round())


def _shift(x: Tensor, y: Tensor) -> Tensor:
    zero, one = torch.zeros_like(x), torch.ones_like(x)
    return _rows((one, zero, -x), (zero, one, -y))


def resample(images: Tensor, matrices: Tensor) -> Tensor:
    """Read `images` bilinearly where `matrices` say, mirrored at the edges. By gathering, which can be differentiated twice:
    `grid_sample` cannot.
    """
    count, channels, height, width = images.shape
    y, x = (torch.arange(size, dtype=images.dtype, device=images.device) - (size - 1) / 2 for size in images.shape[2:])
    pixels = torch.stack([x.repeat(height), y.repeat_interleave(width), torch.ones_like(x).repeat(height)])
    places = matrices @ pixels  # (N, 2, H W)
    columns, rows = places[:, 0] + (width - 1) / 2, places[:, 1] + (height - 1) / 2
    left, top = columns.floor(), rows.floor()
    flat, result = images.flatten(2), torch.zeros_like(images).flatten(2)
    for right in (0, 1):
        for down in (0, 1):
            weight = (columns - left if right else left + 1 - columns) * (rows - top if down else top + 1 - rows)
            index = _mirror(top.long() + down, height) * width + _mirror(left.long() + right, width)
            result = result + flat.gather(2, index[:, None].expand(-1, channels, -1)) * weight[:, None]
    return result.view(count, channels, height, width)


def _mirror(index: Tensor, size: int) -> Tensor:
    """Indices from 0 to `size` - 1, mirrored around the first and the last pixel."""
    period = max(1, 2 * (size - 1))
    index = index % period
    return torch.minimum(index, period - index).clamp(max=size - 1)
