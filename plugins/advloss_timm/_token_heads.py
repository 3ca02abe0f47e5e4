"""The heads of StyleGAN-T (arXiv:2301.09515 section 3.2), which ADD took over (arXiv:2311.17042 section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from advloss import Condition
from advloss_timm._batch_norm import BatchNormLocal
from advloss_timm._conditions import read_condition

WIDTH = 64
"""Channels of the projection."""


def _conv(channels: int, out: int, kernel: int) -> nn.Module:
    return spectral_norm(nn.Conv1d(channels, out, kernel, padding=kernel // 2, padding_mode="circular"), eps=1e-12)


def _block(channels: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(_conv(channels, channels, kernel), BatchNormLocal(channels), nn.LeakyReLU(0.2))


@final
class Projection(nn.Module):
    """Class indices and vectors -> the sum of their linear maps, `(N, 64)`; unit variance for unit variance vectors."""

    def __init__(self, num_classes: int | None, condition_features: int | None) -> None:
        super().__init__()
        self.classes = None if num_classes is None else nn.Embedding(num_classes, WIDTH)
        self.vectors = None if condition_features is None else nn.Linear(condition_features, WIDTH)
        if self.vectors is not None:
            nn.init.normal_(self.vectors.weight, std=self.vectors.in_features**-0.5)
            nn.init.zeros_(self.vectors.bias)

    def forward(self, labels: Tensor | None, vectors: Tensor | None) -> Tensor:
        maps = [] if self.classes is None or labels is None else [self.classes(labels)]
        if self.vectors is not None and vectors is not None:
            maps.append(self.vectors(vectors.to(self.vectors.weight.dtype)))
        return maps[0] if len(maps) == 1 else maps[0] + maps[1]


@final
class TokenHead(nn.Module):
    """One level: ``a = block1(x)``, ``h = (a + block9(a)) / sqrt 2``, and a logit for each token.

    A block is a convolution (kernel 1 or 9, circular, spectral norm), `BatchNormLocal` and leaky ReLU 0.2. The logit is a
    spectral-norm convolution to one channel, or with a condition ``<conv(h), projection(c)> / sqrt 64``.
    """

    def __init__(self, channels: int, num_classes: int | None, condition_features: int | None) -> None:
        super().__init__()
        conditional = num_classes is not None or condition_features is not None
        self.first = _block(channels, 1)
        self.residual = _block(channels, 9)
        self.last = _conv(channels, WIDTH if conditional else 1, 1)
        self.projection = Projection(num_classes, condition_features) if conditional else None

    def forward(self, tokens: Tensor, labels: Tensor | None = None, vectors: Tensor | None = None) -> Tensor:
        """`(N, C, L)` -> `(N, L)`."""
        a = self.first(tokens)
        out = self.last((a + self.residual(a)) / math.sqrt(2))
        if self.projection is not None:
            out = out * self.projection(labels, vectors)[:, :, None] / math.sqrt(WIDTH)
        return out.sum(1)


@final
class TokenHeads(nn.Module):
    """One `TokenHead` a level: levels `(N, C, L)` -> a list of logits `(N, L)`.

    Args:
        channels: C of each level.
        num_classes: with class conditions, their number.
        condition_features: with vector conditions, their length. Both together take a mapping of the two.
    """

    batch_coupled = True

    def __init__(
        self, channels: Sequence[int], num_classes: int | None = None, condition_features: int | None = None
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.condition_features = condition_features
        self.levels = nn.ModuleList(TokenHead(c, num_classes, condition_features) for c in channels)

    def forward(self, features: Sequence[Tensor], condition: Condition | None = None) -> list[Tensor]:
        labels, vectors = read_condition(condition, len(features[0]), self.num_classes, self.condition_features)
        return [head(level, labels, vectors) for head, level in zip(self.levels, features, strict=True)]
