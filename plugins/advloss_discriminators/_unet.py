"""The U-Net discriminator of Real-ESRGAN (Wang et al. 2021)."""

from __future__ import annotations

from typing import final

from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu

from advloss import Condition
from advloss_discriminators._layers import spectral_normalize
from advloss_discriminators._options import check_positive


@final
class UNetDiscriminator(nn.Module):
    """A logit for every pixel, from a U-Net with spectral norm on all but its first and last layers.

    arXiv:2107.10833, section 3.3 and figure 6. Skips are added after the activation; upsampling is bilinear.

    Args:
        in_channels: channels of the images.
        width: channels at full resolution; eight times as many at an eighth of it.
    """

    dims = 2
    smallest = 8
    batch_coupled = False

    def __init__(self, *, in_channels: int = 3, width: int = 64) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, width=width)
        self.in_channels = in_channels
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        scales = (1, 2, 4)
        self.down = nn.ModuleList(nn.Conv2d(width * s, width * s * 2, 4, 2, padding=1, bias=False) for s in scales)
        self.up = nn.ModuleList(nn.Conv2d(width * s * 2, width * s, 3, padding=1, bias=False) for s in scales[::-1])
        self.refine = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.last = nn.Conv2d(width, 1, 3, padding=1)
        for layers in (self.down, self.up, self.refine):
            spectral_normalize(layers)

    def forward(self, samples: Tensor, condition: Condition | None = None) -> Tensor:
        """Logits `(N, 1, H, W)` of `samples` `(N, in_channels, H, W)`, H and W at least 8."""
        hidden = leaky_relu(self.first(samples), 0.2)
        skips = []
        for layer in self.down:
            skips.append(hidden)
            hidden = leaky_relu(layer(hidden), 0.2)
        for layer in self.up:
            skip = skips.pop()  # its size, which is not twice that of `hidden` where a side was odd
            hidden = interpolate(hidden, skip.shape[2:], mode="bilinear", align_corners=False)
            hidden = leaky_relu(layer(hidden), 0.2) + skip
        for layer in self.refine:
            hidden = leaky_relu(layer(hidden), 0.2)
        return self.last(hidden)
