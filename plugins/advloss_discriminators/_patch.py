"""PatchGAN (Isola et al. 2017)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from advloss import Condition, InputError, select_condition
from advloss_discriminators._layers import NORMS, conv_block, convolution, initialize_normal, spectral_normalize
from advloss_discriminators._options import check_choice, check_positive


@final
class PatchDiscriminator(nn.Module):
    """Scores overlapping patches of 70 x 70 pixels, with the default `depth` (arXiv:1611.07004, appendix 6.1.2).

    `depth` convolutions of stride 2 and two of stride 1, all 4 wide, double the width up to eight times `width`.
    256 x 256 images give 30 x 30 logits. Weights start as N(0, 0.02), those of norm layers as N(1, 0.02).

    Args:
        in_channels: channels of the samples.
        width: channels after the first convolution.
        depth: number of convolutions with stride 2; a patch is ``9 * 2**depth - 2`` wide.
        norm: ``"batch"``, ``"instance"``, ``"group"``, ``"spectral"`` (on every convolution) or ``"none"``.
        dims: 1 for signals, 2 for images, 3 for volumes and videos.
        condition_channels: channels of an image condition of the samples' size, concatenated to them; 0 for none.
    """

    def __init__(
        self,
        *,
        in_channels: int = 3,
        width: int = 64,
        depth: int = 3,
        norm: str = "batch",
        dims: int = 2,
        condition_channels: int = 0,
    ) -> None:
        super().__init__()
        check_positive(in_channels=in_channels, width=width, depth=depth)
        check_choice(NORMS, norm=norm)
        check_choice((1, 2, 3), dims=dims)
        if condition_channels != 0:
            check_positive(condition_channels=condition_channels)
        self.in_channels, self.condition_channels, self.dims = in_channels, condition_channels, dims
        self.smallest = 3 * 2**depth  # 3 after the strides, for two convolutions that each take one off
        self.batch_coupled = norm == "batch"
        widths = [width * min(2**level, 8) for level in range(depth + 1)]
        layers = [convolution(in_channels + condition_channels, width, 4, 2, dims=dims), nn.LeakyReLU(0.2)]
        for level in range(1, depth + 1):
            stride = 2 if level < depth else 1
            layers += conv_block(widths[level - 1], widths[level], 4, stride, norm=norm, dims=dims)
        self.layers = nn.Sequential(*layers, convolution(widths[-1], 1, 4, 1, dims=dims))
        self.apply(initialize_normal)
        if norm == "spectral":
            spectral_normalize(self)

    def forward(self, samples: Tensor, condition: Condition | None = None) -> Tensor:
        """Logits `(N, 1, ...)` of `samples` `(N, in_channels, ...)`.

        Raises:
            InputError: the image condition is missing or of another size than the samples.
        """
        if self.condition_channels:
            image = select_condition(condition, "image")
            if image.shape[2:] != samples.shape[2:]:
                raise InputError(
                    f"the image condition has sides {tuple(image.shape[2:])}, the samples {tuple(samples.shape[2:])}; "
                    "resize the condition to the samples' size"
                )
            samples = torch.cat([image, samples], dim=1)
        return self.layers(samples)
