"""How good samples are: Fréchet distance in two feature spaces, and whether prompts are followed."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import cast, final

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, cross_entropy

from advloss_autoencoder import frechet_distance
from benchmarks.shapes.data import COLOURS, SHAPES, Images


@dataclass(frozen=True)
class Figures:
    """Attributes:
    features: Fréchet distance to the held-out images in the judge's features `(N, 64)`.
    pixels: the same in pixels, pooled to 8 x 8.
    colour, shape: shares of images that the judge takes for what they were made for.
    """

    features: float
    pixels: float
    colour: float
    shape: float


@final
class Judge(nn.Module):
    """A small classifier of both attributes, trained on images that nothing else sees."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 16, 32, 64)
        blocks = [
            layer
            for before, after in pairwise(widths)
            for layer in (nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.BatchNorm2d(after), nn.ReLU())
        ]
        self.features = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(64 * 16, 64), nn.ReLU())
        self.colour, self.shape = nn.Linear(64, len(COLOURS)), nn.Linear(64, len(SHAPES))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Logits of colours and of shapes of images `(N, 3, 32, 32)`."""
        features = self.features(images)
        return cast(Tensor, self.colour(features)), cast(Tensor, self.shape(features))


def train_judge(images: Images, steps: int, batch_size: int = 64) -> Judge:
    """On slightly noisy images."""
    torch.manual_seed(0)
    judge = Judge()
    optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    for _ in range(steps):
        chosen = torch.randint(len(images), (batch_size,))
        batch, labels = images.images[chosen], images.labels[chosen]
        colour, shape = judge(batch + 0.05 * torch.randn_like(batch))
        # without smoothing features have heavy tails, and a few odd samples decide a Fréchet distance
        loss = cross_entropy(colour, labels // len(SHAPES), label_smoothing=0.1) + cross_entropy(
            shape, labels % len(SHAPES), label_smoothing=0.1
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge.eval().requires_grad_(False)


class Evaluation:
    """Compares images with held-out ones `(N, 3, 32, 32)`."""

    def __init__(self, judge: Judge, held_out: Tensor) -> None:
        self.judge = judge
        self._held_out = [space(held_out) for space in self._spaces()]

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor) -> Figures:
        """Of images `(N, 3, 32, 32)` that were made for `labels` `(N,)`."""
        images = images.clamp(-1, 1)
        features, pixels = (
            frechet_distance(space(images), there) for space, there in zip(self._spaces(), self._held_out)
        )
        colour, shape = (logits.argmax(1) for logits in self.judge(images))
        return Figures(
            features,
            pixels,
            float((colour == labels // len(SHAPES)).double().mean()),
            float((shape == labels % len(SHAPES)).double().mean()),
        )

    def _spaces(self) -> tuple[nn.Module, ...]:
        return self.judge.features, _Pooled()


class _Pooled(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return avg_pool2d(images, images.shape[-1] // 8).flatten(1)
