"""R3GAN's discriminator (Huang et al. 2024)."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar, final

from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from advloss import Condition, OptionError, select_condition
from advloss_discriminators._options import check_optional, check_positive, halvings
from advloss_discriminators._resample import LowPass

_Layer = TypeVar("_Layer", nn.Conv2d, nn.Linear)

_GAIN = (2 / (1 + 0.2**2)) ** 0.5  # keeps the variance through LeakyReLU 0.2
_GROUP = 16  # channels of one group of the grouped convolutions


@final
class R3GANDiscriminator(nn.Module):
    """Stages of residual blocks without normalization, halved by a low-pass filter (arXiv:2501.05441, section 3).

    At 4 x 4 pixels a depthwise convolution over all of them and a dense layer give the logit, or with classes
    a vector whose inner product with the class's embedding is the logit. Initialization is fix-up's (appendix):
    the last convolution of each block starts at zero, the others are scaled by the number of blocks.
    ``width=768`` is the paper's network for CIFAR-10 (resolution 32) and FFHQ (64 and 256).

    Args:
        in_channels: channels of the images.
        width: channels at 32 x 32 and below; they halve with each doubling of the side beyond. Multiples of 8.
        resolution: side length of the images: a power of two, 8 or more.
        depth: residual blocks a stage.
        num_classes: number of classes.
    """

    dims = 2
    batch_coupled = False

    def __init__(
        self,
        *,
        in_channels: int = 3,
        width: int = 768,
        resolution: int = 32,
        depth: int = 2,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, width=width, depth=depth)
        check_optional(num_classes=num_classes)
        stages = halvings(resolution, range(4, 5)) + 1
        widths = [width // max(1, (resolution >> stage) // 32) for stage in range(stages)]
        factor = width // widths[0] * 8
        if width % factor:
            raise OptionError(f"width={width}: give a multiple of {factor} for resolution={resolution}")
        self.in_channels, self.num_classes = in_channels, num_classes
        self.resolution, self.smallest = resolution, resolution
        scale = (stages * depth) ** -0.25  # L^(-1 / (2m - 2)) for L blocks of m = 3 layers
        self.first = _normal(nn.Conv2d(in_channels, widths[0], 1, bias=False))
        self.stages = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(channels, scale) for _ in range(depth))) for channels in widths
        )
        self.transitions = nn.ModuleList(
            nn.Identity() if before == after else _normal(nn.Conv2d(before, after, 1, bias=False))
            for before, after in pairwise(widths)
        )
        self.halve = LowPass(stride=2, padding=1)
        self.basis = _normal(nn.Conv2d(width, width, 4, groups=width, bias=False))
        self.dense = _normal(nn.Linear(width, 1 if num_classes is None else width, bias=False))
        self.embedding = None if num_classes is None else nn.Embedding(num_classes, width)
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, 0.0, (self.embedding.num_embeddings * width) ** -0.5)

    def forward(self, samples: Tensor, condition: Condition | None = None) -> Tensor:
        """Logits `(N,)` of `samples` `(N, in_channels, resolution, resolution)`.

        Raises:
            InputError: the class is missing.
        """
        hidden = self.stages[0](self.first(samples))
        for transition, stage in zip(self.transitions, list(self.stages)[1:]):
            hidden = stage(transition(self.halve(hidden)))
        features = self.dense(self.basis(hidden).flatten(1))
        if self.embedding is None:
            return features.squeeze(1)
        return (self.embedding(select_condition(condition, "class")) * features).sum(1)


@final
class ResidualBlock(nn.Module):
    """``x + conv1(lrelu(gconv3(lrelu(conv1(x)))))``, twice as wide within, in groups of 16 channels (figure 3)."""

    def __init__(self, channels: int, scale: float) -> None:
        super().__init__()
        inner = 2 * channels
        self.expand = _normal(nn.Conv2d(channels, inner, 1), _GAIN * scale)
        self.mix = _normal(nn.Conv2d(inner, inner, 3, padding=1, groups=inner // _GROUP), _GAIN * scale)
        self.reduce = _normal(nn.Conv2d(inner, channels, 1, bias=False), 0.0)

    def forward(self, inputs: Tensor) -> Tensor:
        """`(N, channels, H, W)` to the same shape."""
        hidden = leaky_relu(self.expand(inputs), 0.2)
        hidden = leaky_relu(self.mix(hidden), 0.2)
        return inputs + self.reduce(hidden)


def _normal(layer: _Layer, gain: float = 1.0) -> _Layer:
    """`layer` with weights N(0, gain^2 / fan_in) and no bias."""
    nn.init.normal_(layer.weight, 0.0, gain * layer.weight[0].numel() ** -0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer
