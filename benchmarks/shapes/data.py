"""Shapes on photographs: images `(N, 3, 32, 32)` in [-1, 1] with two attributes, rendered from a seed."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

from advloss_autoencoder import photographs

SIDE, FINER = 32, 3
COLOURS = ("red", "yellow", "green", "cyan", "blue", "magenta")
SHAPES = ("circle", "ring", "square", "triangle", "cross", "bar")
PROMPTS = tuple(f"{colour} {shape}" for colour in COLOURS for shape in SHAPES)
INSIDE: tuple[Callable[[Tensor, Tensor], Tensor], ...] = (
    lambda u, v: torch.hypot(u, v) < 0.85,
    lambda u, v: (torch.hypot(u, v) - 0.72).abs() < 0.23,
    lambda u, v: torch.maximum(u.abs(), v.abs()) < 0.75,
    lambda u, v: torch.maximum(v, (math.sqrt(3) * u.abs() - v) / 2) < 0.55,
    lambda u, v: (torch.minimum(u.abs(), v.abs()) < 0.26) & (torch.maximum(u.abs(), v.abs()) < 1),
    lambda u, v: (u.abs() < 1.05) & (v.abs() < 0.32),
)
"""Whether a point is within a shape, as in `SHAPES`, of size 1."""
WORDS = 16
"""Length of a word's embedding."""


@dataclass(frozen=True)
class Images:
    """Attributes:
    images: `(N, 3, 32, 32)`.
    labels: `(N,)`, places in `PROMPTS`, each as often as can be.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def embeddings(labels: Tensor) -> Tensor:
    """Prompts of two words `(N, 2, 16)`, in place of a text encoder's: a fixed random vector a word, and its position."""
    draws = torch.Generator().manual_seed(0)
    colours, shapes = (torch.randn(6, WORDS, generator=draws) for _ in range(2))
    return torch.stack([colours[labels // len(SHAPES)], shapes[labels % len(SHAPES)]], 1)


def render(count: int, seed: int, *, held_out: bool = False) -> Images:
    """Shapes of random size, place, rotation and shade on tinted pieces of photographs, the same for a seed.

    Args:
        held_out: take the photographs that are held out.
    """
    draws = torch.Generator().manual_seed(seed)
    labels = (torch.arange(count) % len(PROMPTS))[torch.randperm(count, generator=draws)]
    parts = [_render(some, held_out, draws) for some in labels.split(500)]
    return Images(torch.cat(parts), labels)


def _render(labels: Tensor, held_out: bool, draws: torch.Generator) -> Tensor:
    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(len(labels), generator=draws)

    mask = _masks(
        labels % len(SHAPES), uniform(8.0, 12.0), uniform(12.0, 20.0), uniform(12.0, 20.0), uniform(-0.4, 0.4)
    )
    hue = (labels // len(SHAPES) + uniform(-0.15, 0.15)) / len(COLOURS)
    shade = _rgb(hue, uniform(0.75, 1.0), uniform(0.65, 1.0))
    ground = _rgb(uniform(0, 1), uniform(0, 0.35), uniform(0.2, 0.8)) + 0.12 * _texture(len(labels), held_out, draws)
    return ((1 - mask) * ground + mask * shade).clamp(0, 1) * 2 - 1


def _masks(shapes: Tensor, size: Tensor, x: Tensor, y: Tensor, angle: Tensor) -> Tensor:
    """How much of each pixel a shape covers `(N, 1, 32, 32)`; `size` is about a radius, in pixels."""
    at = (torch.arange(SIDE * FINER) + 0.5) / FINER
    down, across = (at[:, None] - y.view(-1, 1, 1)), (at - x.view(-1, 1, 1))
    cosine, sine = angle.cos().view(-1, 1, 1), angle.sin().view(-1, 1, 1)
    u, v = ((cosine * across + sine * down), (cosine * down - sine * across))
    u, v = u / size.view(-1, 1, 1), v / size.view(-1, 1, 1)
    covered = torch.empty_like(u)
    for place, inside in enumerate(INSIDE):
        here = shapes == place
        covered[here] = inside(u[here], v[here]).float()
    return avg_pool2d(covered.unsqueeze(1), FINER)


def _rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Colours `(N, 3, 1, 1)` in [0, 1] of hues, saturations and values in [0, 1]."""
    k = (torch.tensor([5.0, 3.0, 1.0]) + 6 * hue.unsqueeze(1)) % 6
    fall = torch.minimum(k, 4 - k).clamp(0, 1)
    return (value.unsqueeze(1) * (1 - saturation.unsqueeze(1) * fall))[:, :, None, None]


def _texture(count: int, held_out: bool, draws: torch.Generator) -> Tensor:
    """Pieces of photographs in grey and out of focus, `(N, 1, 32, 32)` with mean 0 and deviation 1."""
    photos = _photos(held_out)
    pieces = []
    for which in torch.randint(len(photos), (count,), generator=draws).tolist():
        photo = photos[which]
        side = int(torch.randint(3, 8, (), generator=draws))
        top, left = (int(torch.randint(length - side + 1, (), generator=draws)) for length in photo.shape[-2:])
        piece = photo[..., top : top + side, left : left + side]
        pieces.append(interpolate(piece, (SIDE, SIDE), mode="bicubic", align_corners=False))
    made = torch.cat(pieces)
    return (made - made.mean((2, 3), keepdim=True)) / (made.std((2, 3), keepdim=True) + 2.0)


@functools.cache
def _photos(held_out: bool) -> list[Tensor]:
    """In grey, a sixteenth as wide `(1, 1, H, W)`."""
    return [avg_pool2d(photo.float().mean(0, keepdim=True)[None], 16) for photo in photographs()[held_out]]
