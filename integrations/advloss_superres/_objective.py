"""The objective of one phase: pixels alone, or with perception and an adversary."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, final

from torch import Tensor, nn
from torch.nn import functional

from advloss import Adversary, FeatureMatching, InputError, OptionError, Perceptual, Report, perceptual_distance
from advloss_superres._bicubic import resize

Pixel = Literal["l1", "l2", "charbonnier"]


def charbonnier(made: Tensor, originals: Tensor, epsilon: float = 1e-3) -> Tensor:
    """``mean sqrt((made - originals)^2 + epsilon^2)``: L1 that is smooth at 0 (arXiv:1710.01992)."""
    return ((made - originals).square() + epsilon**2).sqrt().mean()


_PIXEL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": functional.l1_loss,
    "l2": functional.mse_loss,
    "charbonnier": charbonnier,
}


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The network's losses of one batch, scalars on the device.

    Attributes:
        total: what to differentiate.
        pixel, perceptual, feature_matching: before their weights.
        adversarial: the adversary's generator loss, with its weight; 0 before its start step.
    """

    total: Tensor
    pixel: Tensor
    perceptual: Tensor | None = None
    adversarial: Tensor | None = None
    feature_matching: Tensor | None = None

    def as_dict(self) -> dict[str, float]:
        """Numbers for a log line or a tracker; reads the tensors (synchronizes)."""
        return {name: float(value.detach()) for name, value in vars(self).items() if value is not None}


@final
class Objective:
    """``pixel_weight pixel + perceptual_weight perceptual + adversarial + feature_matching matching``.

    Without an adversary it is that of a PSNR phase.

    Args:
        adversary: judges what the network makes, with its own weight.
        pixel: the distance of pixels, by name or as a function of made images and originals to a scalar.
        pixel_weight: 1 in Real-ESRGAN, 0.01 in ESRGAN (both on images in [0, 1]), 100 in pix2pix.
        perceptual: a module or function of made images and originals, such as `advloss.load_lpips()`; a module is frozen.
        perceptual_weight: of that term.
        feature_matching: weight of that term (`FeatureMatching`).
        conditional: the discriminator sees what the network was given too, as an image condition, enlarged to the size
            of the output; for discriminators with `condition_channels` (``patch``).

    Raises:
        OptionError: an option outside these, or one that needs an adversary without one.
        CombinationError: feature matching with an adversary that augments.
    """

    def __init__(
        self,
        adversary: Adversary | None = None,
        *,
        pixel: Pixel | Callable[[Tensor, Tensor], Tensor] = "l1",
        pixel_weight: float = 1.0,
        perceptual: Perceptual | None = None,
        perceptual_weight: float = 1.0,
        feature_matching: float = 0.0,
        conditional: bool = False,
    ) -> None:
        if isinstance(pixel, str) and pixel not in _PIXEL:
            raise OptionError(f"pixel={pixel!r}: there are {', '.join(_PIXEL)}, or give a function")
        weights = {
            "pixel_weight": pixel_weight,
            "perceptual_weight": perceptual_weight,
            "feature_matching": feature_matching,
        }
        for name, weight in weights.items():
            if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
                raise OptionError(f"{name}={weight!r}: give a finite number, 0 or more")
        if adversary is None and (feature_matching or conditional):
            raise OptionError("feature_matching and conditional are about a discriminator: give an adversary too")
        if isinstance(perceptual, nn.Module):
            perceptual.requires_grad_(False).eval()
        self.adversary, self.conditional = adversary, conditional
        self.pixel = _PIXEL[pixel] if isinstance(pixel, str) else pixel
        self.pixel_weight = pixel_weight
        self.perceptual, self.perceptual_weight = perceptual, perceptual_weight
        self.matching = FeatureMatching(adversary) if adversary is not None and feature_matching else None
        self.matching_weight = feature_matching

    def __call__(self, made: Tensor, originals: Tensor, given: Tensor) -> Losses:
        """The network's losses.

        Args:
            made: what the network made `(N, C, H, W)`, in [-1, 1].
            originals: of the same shape.
            given: what the network was given `(N, C', h, w)`.

        Raises:
            InputError: `made` has another shape than `originals`, or the pixel loss is no scalar.
        """
        if made.shape != originals.shape:
            raise InputError(
                f"the network made images of shape {tuple(made.shape)}, the originals have {tuple(originals.shape)}: "
                "its scale is not that of the data, or a side is not what its downsampling divides"
            )
        pixel = self.pixel(made, originals)
        if not isinstance(pixel, Tensor) or pixel.ndim:
            what = f"of shape {tuple(pixel.shape)}" if isinstance(pixel, Tensor) else f"a {type(pixel).__name__}"
            raise InputError(f"the pixel loss is {what}: return a scalar tensor, such as its mean")
        total, perceptual, adversarial, matching = self.pixel_weight * pixel, None, None, None
        if self.perceptual is not None:
            perceptual = perceptual_distance(self.perceptual, made, originals)
            total = total + self.perceptual_weight * perceptual
        if self.adversary is not None:
            condition = self._condition(given, originals)
            if self.matching is None:
                adversarial = self.adversary.generator_loss(made, originals, condition)
            else:
                adversarial, matching = self.matching(made, originals, condition)
            total = total + adversarial
            if matching is not None:
                total = total + self.matching_weight * matching
        return Losses(
            total=total, pixel=pixel, perceptual=perceptual, adversarial=adversarial, feature_matching=matching
        )

    def discriminator_step(self, made: Tensor, originals: Tensor, given: Tensor) -> Report | None:
        """The discriminator's turn on the same batch; None without an adversary."""
        if self.adversary is None:
            return None
        return self.adversary.discriminator_step(originals, made, self._condition(given, originals))

    def _condition(self, given: Tensor, originals: Tensor) -> Tensor | None:
        if not self.conditional:
            return None
        height, width = originals.shape[-2:]
        return given if given.shape[-2:] == originals.shape[-2:] else resize(given, (height, width))
