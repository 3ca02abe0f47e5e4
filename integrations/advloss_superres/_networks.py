"""Reference networks: a plain residual one, and ESRGAN's residual-in-residual dense blocks."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn import functional

from advloss import OptionError
from advloss_superres._bicubic import check_scale


class _ResidualBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.last = _small(nn.Conv2d(width, width, 3, padding=1))

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.last(functional.relu(self.first(hidden)))


@final
class ResidualNetwork(nn.Module):
    """EDSR in small (arXiv:1707.02921): residual blocks without norm at low resolution, then one pixel shuffle.

    Its output is added to the bilinearly enlarged input, and begins small.

    Args:
        scale: 1 to 4 and more; 1 for restoration and translation.
        width: channels.
        depth: residual blocks.
        in_channels, out_channels: where they differ, nothing is added to the output.
    """

    def __init__(
        self, scale: int = 2, *, width: int = 32, depth: int = 6, in_channels: int = 3, out_channels: int = 3
    ) -> None:
        super().__init__()
        check_scale(scale)
        _check(width=width, depth=depth, in_channels=in_channels, out_channels=out_channels)
        self.scale, self.skip = scale, in_channels == out_channels
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(_ResidualBlock(width) for _ in range(depth)))
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.last = _small(nn.Conv2d(width, out_channels * scale**2, 3, padding=1))

    def forward(self, images: Tensor) -> Tensor:
        """`(N, in_channels, H, W)` to `(N, out_channels, scale H, scale W)`, both in [-1, 1]; not clamped."""
        hidden = self.first(images)
        hidden = functional.relu(self.middle(self.blocks(hidden)) + hidden)
        made = functional.pixel_shuffle(self.last(hidden), self.scale)
        return made + _enlarge(images, self.scale) if self.skip else made


class _DenseBlock(nn.Module):
    """Five convolutions, each of which sees all before it; a fifth of what the last makes is added to the input."""

    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        layers = [nn.Conv2d(width + i * growth, growth if i < 4 else width, 3, padding=1) for i in range(5)]
        for layer in layers:
            nn.init.kaiming_normal_(layer.weight, a=0.2)
        self.layers = nn.ModuleList(map(_small, layers))  # arXiv:1809.00219, section 3.1: smaller initialization

    def forward(self, hidden: Tensor) -> Tensor:
        *layers, last = self.layers
        seen = [hidden]
        for layer in layers:
            seen.append(functional.leaky_relu(layer(torch.cat(seen, 1)), 0.2))
        return hidden + 0.2 * last(torch.cat(seen, 1))


class _RRDB(nn.Module):
    def __init__(self, width: int, growth: int) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(_DenseBlock(width, growth) for _ in range(3)))

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + 0.2 * self.blocks(hidden)


@final
class RRDBNetwork(nn.Module):
    """ESRGAN's generator (arXiv:1809.00219, section 3.1), by default a compact one; the paper's is 64, 32, 23.

    Enlarges by nearest neighbours and a convolution, in steps of 2 or one of 3.

    Args:
        scale: 1, 2, 3 or 4.
        width: channels between the blocks.
        growth: channels that every layer inside a dense block adds.
        depth: blocks of three dense blocks.
    """

    def __init__(
        self,
        scale: int = 4,
        *,
        width: int = 32,
        growth: int = 16,
        depth: int = 4,
        in_channels: int = 3,
        out_channels: int = 3,
    ) -> None:
        super().__init__()
        if scale not in (1, 2, 3, 4):
            raise OptionError(f"scale={scale!r}: this network has 1, 2, 3 and 4")
        _check(width=width, growth=growth, depth=depth, in_channels=in_channels, out_channels=out_channels)
        self.scale, self.steps = scale, {1: (), 2: (2,), 3: (3,), 4: (2, 2)}[scale]
        self.first = nn.Conv2d(in_channels, width, 3, padding=1)
        self.blocks = nn.Sequential(*(_RRDB(width, growth) for _ in range(depth)))
        self.middle = nn.Conv2d(width, width, 3, padding=1)
        self.enlarge = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in self.steps)
        self.refine = nn.Conv2d(width, width, 3, padding=1)
        self.last = nn.Conv2d(width, out_channels, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        """`(N, in_channels, H, W)` to `(N, out_channels, scale H, scale W)`, both in [-1, 1]; not clamped."""
        hidden = self.first(images)
        hidden = hidden + self.middle(self.blocks(hidden))
        for step, layer in zip(self.steps, self.enlarge):
            hidden = functional.leaky_relu(layer(functional.interpolate(hidden, scale_factor=step)), 0.2)
        return self.last(functional.leaky_relu(self.refine(hidden), 0.2))


def _small(layer: nn.Conv2d) -> nn.Conv2d:
    """`layer` with a tenth of its first weights: what it adds begins small."""
    with torch.no_grad():
        layer.weight.mul_(0.1)
    return layer


def _enlarge(images: Tensor, scale: int) -> Tensor:
    """Bilinear, with weights that are the same at every place.

    `functional.interpolate` computes coordinates in float32: tiles at scale 3 would differ from the whole by 1e-4.
    """
    for dim in (2, 3) if scale > 1 else ():
        length = images.shape[dim]
        before = torch.cat([images.narrow(dim, 0, 1), images.narrow(dim, 0, length - 1)], dim)
        after = torch.cat([images.narrow(dim, 1, length - 1), images.narrow(dim, length - 1, 1)], dim)
        places = [(2 * part + 1 - scale) / (2 * scale) for part in range(scale)]  # of a pixel's parts, from its centre
        parts = [torch.lerp(images, before if place < 0 else after, abs(place)) for place in places]
        images = torch.stack(parts, dim + 1).flatten(dim, dim + 1)
    return images


def _check(**options: int) -> None:
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise OptionError(f"{name}={value!r}: give a whole number, 1 or more")
