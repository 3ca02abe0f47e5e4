"""The low-pass filter that StyleGAN2's and R3GAN's discriminators halve images with."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d


@final
class LowPass(nn.Module):
    """Filters images with ``[1, 3, 3, 1] / 8`` along both axes, zeros beyond the edges.

    With `stride` 2 and `padding` 1 this is antialiased bilinear downsampling by 2.
    """

    kernel: Tensor

    def __init__(self, *, stride: int, padding: int) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", taps.outer(taps).view(1, 1, 4, 4), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """`(N, C, H, W)` to `(N, C, ...)`."""
        channels = images.shape[1]
        return conv2d(
            images, self.kernel.expand(channels, 1, 4, 4), stride=self.stride, padding=self.padding, groups=channels
        )
