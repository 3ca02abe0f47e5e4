"""Frozen features at four scales, mixed by fixed random convolutions (arXiv:2111.01007 section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from advloss_timm._images import ImageInput


@final
class PyramidFeatures(nn.Module):
    """Samples -> four maps, the finest first, each twice as large as the backbone's.

    Cross-channel mixing: a 1x1 convolution takes scale i (0 the finest) to ``width 2^i`` channels. Cross-scale mixing, from
    the coarsest to the finest: add the next scale, double the size bilinearly, and a 3x3 convolution to half the channels
    (the finest keeps its own). All of it is random, drawn once (Kaiming normal without gain, as no activation follows; no
    biases) from `seed` alone, so that every process has the same. A pure function of the samples.

    Args:
        model: a timm model built with ``features_only=True`` that returns four maps.
        images: what samples pass first.
        channels: of the backbone's maps.
        width: channels of the finest mixed map.
        seed: of the random mixing.
    """

    dims = 2

    def __init__(
        self, model: nn.Module, images: ImageInput, channels: Sequence[int], width: int = 64, seed: int = 0
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.images = images
        self.in_channels = images.in_channels
        self.smallest = images.smallest
        mixed = [width * 2**i for i in range(4)]
        self.channels = (width, *mixed[:3])
        self.across_channels = nn.ModuleList(
            nn.Conv2d(c, m, 1, bias=False) for c, m in zip(channels, mixed, strict=True)
        )
        self.across_scales = nn.ModuleList(
            nn.Conv2d(m, c, 3, padding=1, bias=False) for m, c in zip(mixed, self.channels, strict=True)
        )
        generator = torch.Generator().manual_seed(seed)
        for weight in (*self.across_channels.parameters(), *self.across_scales.parameters()):
            nn.init.kaiming_normal_(weight, nonlinearity="linear", generator=generator)

    def forward(self, samples: Tensor) -> list[Tensor]:
        """`(N, in_channels, H, W)` in [-1, 1] -> maps `(N, C, h, w)`, the finest first."""
        return self.mix(self.model(self.images(samples)))

    def mix(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The backbone's four maps, the finest first -> those that the heads see."""
        lateral = [conv(scale) for conv, scale in zip(self.across_channels, maps, strict=True)]
        mixed: list[Tensor] = []
        for i in (3, 2, 1, 0):
            x = lateral[i] if i == 3 else lateral[i] + mixed[0]
            height, width = lateral[i - 1].shape[-2:] if i else (2 * x.shape[-2], 2 * x.shape[-1])
            x = interpolate(x, (height, width), mode="bilinear", align_corners=False)
            mixed.insert(0, self.across_scales[i](x))
        return mixed
