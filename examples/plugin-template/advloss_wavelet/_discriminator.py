"""A discriminator on the bands of a Haar transform (after Gal et al. 2021)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from advloss import Condition


@final
class WaveletDiscriminator(nn.Module):
    """Convolutions on the four Haar bands of an image: high frequencies are inputs of their own (arXiv:2102.06108).

    Args:
        in_channels: channels of the images.
        width: channels after the first convolution.
    """

    dims = 2
    smallest = 3

    def __init__(self, *, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.layers = nn.Sequential(
            nn.Conv2d(4 * in_channels, width, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 4, stride=2, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 3, padding=1),
        )

    def forward(self, samples: Tensor, condition: Condition | None = None) -> Tensor:
        """Logits `(N, 1, h, w)` of `samples` `(N, in_channels, H, W)`; a quarter as high and wide."""
        return self.layers(haar(samples))


def haar(images: Tensor) -> Tensor:
    """`(N, C, H, W)` -> the bands `(N, 4 C, H / 2, W / 2)`: means, and differences along rows, columns and both.

    The transform is orthonormal. An odd side is made even by repeating its last line.
    """
    height, width = images.shape[2:]
    images = pad(images, (0, width % 2, 0, height % 2), mode="replicate")
    a, b = images[:, :, 0::2, 0::2], images[:, :, 0::2, 1::2]
    c, d = images[:, :, 1::2, 0::2], images[:, :, 1::2, 1::2]
    return torch.cat([a + b + c + d, a - b + c - d, a + b - c - d, a - b - c + d], dim=1) / 2
