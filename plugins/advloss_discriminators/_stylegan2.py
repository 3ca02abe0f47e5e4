"""StyleGAN2's discriminator (Karras et al. 2020)."""

from __future__ import annotations

from itertools import pairwise
from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu, linear

from advloss import Condition
from advloss_discriminators._minibatch_std import MinibatchStd
from advloss_discriminators._options import check_positive, halvings
from advloss_discriminators._resample import LowPass


@final
class StyleGAN2Discriminator(nn.Module):
    """Residual blocks that halve the image, then minibatch standard deviation at 4 x 4 (arXiv:1912.04958, figure 7).

    Weights start as N(0, 1) and are scaled in each forward to He's variance ("equalized learning rate",
    arXiv:1710.10196, section 4.1). ``width=128, resolution=256`` is the paper's for FFHQ at 256 x 256; at
    1024 x 1024 it has ``width=32``.

    Args:
        in_channels: channels of the images.
        width: channels at full resolution; they double with each halving of the side, up to 512.
        resolution: side length of the images: a power of two, 8 or more.
        group_size: the most samples that one standard deviation is taken over.
    """

    dims = 2
    batch_coupled = True

    def __init__(self, *, in_channels: int = 3, width: int = 128, resolution: int = 256, group_size: int = 4) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, width=width)
        steps = halvings(resolution, range(4, 5))
        self.in_channels, self.resolution, self.smallest = in_channels, resolution, resolution
        widths = [min(width * 2**step, max(512, width)) for step in range(steps + 1)]
        last = widths[-1]
        self.first = EqualizedConv(in_channels, width, 1)
        self.blocks = nn.Sequential(*(ResidualBlock(before, after) for before, after in pairwise(widths)))
        self.spread = MinibatchStd(group_size=group_size)
        self.conv = EqualizedConv(last + 1, last, 3)
        self.dense = EqualizedLinear(last * 16, last)
        self.logit = EqualizedLinear(last, 1)

    def forward(self, samples: Tensor, condition: Condition | None = None) -> Tensor:
        """Logits `(N,)` of `samples` `(N, in_channels, resolution, resolution)`."""
        hidden = self.blocks(activate(self.first(samples)))
        hidden = activate(self.conv(self.spread(hidden)))
        return self.logit(activate(self.dense(hidden.flatten(1)))).squeeze(1)


@final
class ResidualBlock(nn.Module):
    """``(conv(blur(conv(x))) + skip(blur(x))) / sqrt 2``, half as high and wide (figure 7)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv1 = EqualizedConv(in_channels, in_channels, 3)
        self.conv2 = EqualizedConv(in_channels, out_channels, 3, stride=2)
        self.blur, self.halve = LowPass(stride=1, padding=2), LowPass(stride=2, padding=1)
        self.skip = EqualizedConv(in_channels, out_channels, 1, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """`(N, in_channels, H, W)` to `(N, out_channels, H / 2, W / 2)`."""
        hidden = activate(self.conv1(inputs))
        hidden = activate(self.conv2(self.blur(hidden)))
        return (hidden + self.skip(self.halve(inputs))) * 0.5**0.5


@final
class EqualizedConv(nn.Module):
    """Convolution with weights divided by the root of their fan-in; no padding where it strides."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.stride, self.padding = stride, kernel // 2 if stride == 1 else 0
        self.scale = (in_channels * kernel**2) ** -0.5

    def forward(self, inputs: Tensor) -> Tensor:
        """`(N, in_channels, H, W)` to `(N, out_channels, ...)`."""
        return conv2d(inputs, self.weight * self.scale, self.bias, self.stride, self.padding)


@final
class EqualizedLinear(nn.Module):
    """Dense layer with weights divided by the root of their fan-in."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, inputs: Tensor) -> Tensor:
        """`(N, in_features)` to `(N, out_features)`."""
        return linear(inputs, self.weight * inputs.shape[1] ** -0.5, self.bias)


def activate(inputs: Tensor) -> Tensor:
    """LeakyReLU 0.2 times sqrt 2, which keeps the second moment."""
    return leaky_relu(inputs, 0.2) * 2**0.5
