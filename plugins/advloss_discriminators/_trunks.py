"""The convolutional and the residual trunk of SN-GAN: all layers before the last, dense one."""

from __future__ import annotations

from itertools import pairwise
from typing import final

from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, relu

from advloss_discriminators._options import check_choice, check_optional, check_positive, halvings

ARCHITECTURES = ("convolutional", "residual")


def make_trunk(
    architecture: str, in_channels: int, width: int | None, resolution: int
) -> ConvolutionalTrunk | ResidualTrunk:
    """The trunk of this name. `width` None is the paper's: 64, or 128 for a residual one below 64 x 64."""
    check_choice(ARCHITECTURES, architecture=architecture)
    check_positive(in_channels=in_channels, resolution=resolution)
    check_optional(width=width)
    if architecture == "convolutional":
        return ConvolutionalTrunk(in_channels, width or 64, resolution)
    return ResidualTrunk(in_channels, width or (128 if resolution < 64 else 64), resolution)


@final
class ConvolutionalTrunk(nn.Module):
    """SN-GAN's standard CNN (arXiv:1802.05957, table 3b): conv3 and conv4 of stride 2 by turns, LeakyReLU 0.1.

    The side halves down to 4 to 7 pixels; the width doubles with each halving, up to eight times `width`.

    Attributes:
        features: channels that come out.
        side: side length that comes out.
    """

    def __init__(self, in_channels: int, width: int, resolution: int) -> None:
        super().__init__()
        steps = halvings(resolution, range(4, 8))
        widths = [width * min(2**step, 8) for step in range(steps + 1)]
        layers: list[nn.Module] = []
        for before, after in zip([in_channels, *widths], widths):
            layers += [xavier(nn.Conv2d(before, after, 3, padding=1), gain=2**0.5), nn.LeakyReLU(0.1)]
            layers += [xavier(nn.Conv2d(after, after, 4, 2, padding=1), gain=2**0.5), nn.LeakyReLU(0.1)]
        self.layers = nn.Sequential(*layers[:-2])  # the last stage has no stride
        self.features, self.side = widths[-1], resolution >> steps

    def forward(self, samples: Tensor) -> Tensor:
        """Features `(N, features, side, side)` of `samples` `(N, in_channels, resolution, resolution)`."""
        return self.layers(samples)


@final
class ResidualTrunk(nn.Module):
    """SN-GAN's ResNet (arXiv:1802.05957, tables 4 and 6): residual blocks with average pooling, then a ReLU.

    Below 64 x 64 as for CIFAR-10 (table 4): blocks of equal width that pool 32 pixels to 8, then two that do not.
    From 64 x 64 on as for ImageNet (table 6): each block pools and doubles the width up to sixteen times
    `width`, down to 4 to 7 pixels; then one that does not.

    Attributes:
        features: channels that come out.
        side: side length that comes out.
    """

    def __init__(self, in_channels: int, width: int, resolution: int) -> None:
        super().__init__()
        pools = halvings(resolution, range(4, 8))
        if resolution < 64:
            pools = max(1, pools - 1)
            plan = [(width, True)] * pools + [(width, False)] * 2
        else:
            plan = [(width * min(2**level, 16), True) for level in range(pools)]
            plan.append((plan[-1][0], False))
        blocks = [ResidualBlock(in_channels, plan[0][0], pool=True, first=True)]
        for (before, _), (after, pool) in pairwise(plan):
            blocks.append(ResidualBlock(before, after, pool=pool))
        self.blocks = nn.Sequential(*blocks)
        self.features, self.side = plan[-1][0], resolution >> pools

    def forward(self, samples: Tensor) -> Tensor:
        """Features `(N, features, side, side)` of `samples` `(N, in_channels, resolution, resolution)`."""
        return relu(self.blocks(samples))


@final
class ResidualBlock(nn.Module):
    """``x + conv(relu(conv(relu(x))))``, both terms pooled by 2 if `pool` is set; the first block starts without ReLU.

    The skip pools before its 1 x 1 convolution, which commutes with pooling and is cheaper so.
    """

    def __init__(self, in_channels: int, out_channels: int, *, pool: bool, first: bool = False) -> None:
        super().__init__()
        self.pool, self.first = pool, first
        hidden = out_channels if first else in_channels
        self.conv1 = xavier(nn.Conv2d(in_channels, hidden, 3, padding=1), gain=2**0.5)
        self.conv2 = xavier(nn.Conv2d(hidden, out_channels, 3, padding=1), gain=2**0.5)
        changes = pool or in_channels != out_channels
        self.skip = xavier(nn.Conv2d(in_channels, out_channels, 1), gain=1.0) if changes else nn.Identity()

    def forward(self, inputs: Tensor) -> Tensor:
        """`(N, in_channels, H, W)` to `(N, out_channels, H, W)`, or half as high and wide."""
        hidden = self.conv1(inputs if self.first else relu(inputs))
        hidden = self.conv2(relu(hidden))
        if self.pool:
            hidden, inputs = avg_pool2d(hidden, 2), avg_pool2d(inputs, 2)
        return hidden + self.skip(inputs)


def xavier(layer: nn.Conv2d, gain: float) -> nn.Conv2d:
    """`layer` with the paper code's initialization: Glorot's uniform weights times `gain`, no bias."""
    nn.init.xavier_uniform_(layer.weight, gain)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
