"""From samples to what a pretrained backbone expects of its images."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from advloss import InputError
from advloss_timm._options import image_channels


@final
class ImageInput(nn.Module):
    """Samples `(N, in_channels, H, W)` in [-1, 1] -> images `(N, 3, h, w)` with the backbone's mean and deviation.

    Linear in the samples, without clamping, so that gradients reach all of them.

    Args:
        in_channels: 3, or 1, which is repeated.
        size: both sides of the images; others are resized (bicubic, antialiased). None keeps the samples' size.
        mean, std: of images in [0, 1], `(3,)`.
        smallest, multiple: what both sides must be at least, and a multiple of, where samples keep their size.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, in_channels: int, size: int | None, mean: Tensor, std: Tensor, smallest: int = 1, multiple: int = 1
    ) -> None:
        super().__init__()
        self.in_channels = image_channels(in_channels)
        self.size = size
        self.smallest = smallest if size is None else 1
        self.multiple = multiple
        self.register_buffer("mean", mean.view(3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(3, 1, 1), persistent=False)

    def forward(self, samples: Tensor) -> Tensor:
        self._check(samples)
        samples = samples.to(self.mean.dtype)
        if self.size is not None and samples.shape[-2:] != (self.size, self.size):
            samples = interpolate(samples, (self.size, self.size), mode="bicubic", antialias=True, align_corners=False)
        return (samples * 0.5 + (0.5 - self.mean)) / self.std

    def _check(self, samples: Tensor) -> None:
        given = f"samples of shape {tuple(samples.shape)} and {samples.dtype}"
        if samples.ndim != 4 or samples.shape[1] != self.in_channels or samples.numel() == 0:
            raise InputError(f"{given}; expected (N, {self.in_channels}, H, W), channels first and not empty")
        if not torch.is_floating_point(samples):
            raise InputError(f"{given}; expected floats in [-1, 1]")
        height, width = samples.shape[-2:]
        if self.size is None:
            if min(height, width) < self.smallest:
                raise InputError(
                    f"{given}; without resizing both sides must be at least {self.smallest}: use resize=True"
                )
            if height % self.multiple or width % self.multiple:
                raise InputError(f"{given}; without resizing both sides must be multiples of {self.multiple}")
