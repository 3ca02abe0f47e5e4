"""The heads of Projected GAN (arXiv:2111.01007 section 3.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, final

from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from advloss import Condition, OptionError
from advloss_timm._conditions import read_condition

Norm = Literal["batch", "none"]


def halvings(sides: Sequence[int]) -> list[int]:
    """How often each scale's head halves its map, whose side ends at about 8: (4, 3, 2, 1) for images of 224 or more."""
    return [min(max(round(math.log2(side / 8)), 0), 4 - i) for i, side in enumerate(sides)]


@final
class MapHead(nn.Module):
    """Blocks that halve a map (4x4 stride 2 convolution, norm, leaky ReLU 0.2), then a 4x4 convolution to the logits.

    Every convolution has spectral norm. With classes the last one gives 64 channels, and the logit is
    ``<out, leaky_relu(W e(y))> / sqrt 64``, e an embedding of 128.

    Args:
        channels: of its map.
        widths: channels after each block.
        num_classes: with class conditions, their number.
        norm: ``"batch"`` (as published) or ``"none"``.
    """

    def __init__(self, channels: int, widths: Sequence[int], num_classes: int | None, norm: Norm) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in zip((channels, *widths), widths):
            layers.append(spectral_norm(nn.Conv2d(before, after, 4, stride=2, padding=1), eps=1e-12))
            layers += [nn.BatchNorm2d(after)] if norm == "batch" else []
            layers.append(nn.LeakyReLU(0.2))
        self.blocks = nn.Sequential(*layers)
        out = 1 if num_classes is None else 64
        self.last = spectral_norm(nn.Conv2d((channels, *widths)[-1], out, 4, bias=False), eps=1e-12)
        self.projection: nn.Module | None = None
        if num_classes is not None:
            self.projection = nn.Sequential(nn.Embedding(num_classes, 128), nn.Linear(128, out), nn.LeakyReLU(0.2))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """`(N, C, h, w)` -> `(N, 1, h', w')`."""
        out = self.last(self.blocks(x))
        if self.projection is not None:
            out = out * self.projection(labels)[:, :, None, None] / math.sqrt(out.shape[1])
        return out.sum(1, keepdim=True)


@final
class MapHeads(nn.Module):
    """One `MapHead` a scale: maps `(N, C, h, w)` -> a list of logits `(N, 1, h', w')`.

    Each map is halved until its side is about 8; the channels double with each block and end at ``8 width``.

    Args:
        channels: of each map, the finest first.
        sides: of each map.
        width: channels of the finest map.
        num_classes: with class conditions, their number.
        norm: as in `MapHead`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        sides: Sequence[int],
        width: int = 64,
        num_classes: int | None = None,
        norm: Norm = "batch",
    ) -> None:
        super().__init__()
        if norm not in ("batch", "none"):
            raise OptionError(f"norm={norm!r}; give 'batch' or 'none'")
        self.num_classes = num_classes
        self.batch_coupled = norm == "batch"
        widths = [width, 2 * width, 4 * width, 8 * width]
        self.scales = nn.ModuleList(
            MapHead(c, widths[4 - blocks :], num_classes, norm)
            for c, blocks in zip(channels, halvings(sides), strict=True)
        )

    def forward(self, features: Sequence[Tensor], condition: Condition | None = None) -> list[Tensor]:
        labels, _ = read_condition(condition, len(features[0]), self.num_classes, None)
        return [head(scale, labels) for head, scale in zip(self.scales, features, strict=True)]
