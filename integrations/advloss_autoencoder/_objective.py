"""The whole objective of an autoencoder with an adversary."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, final

import torch
from torch import Tensor, nn
from torch.nn import functional

from advloss import (
    AdaptiveWeight,
    Adversary,
    FeatureMatching,
    InputError,
    OptionError,
    Perceptual,
    Report,
    perceptual_distance,
)
from advloss_autoencoder._autoencoder import Reconstruction

Pixel = Literal["l1", "l2", "huber"]
_PIXEL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": functional.l1_loss,
    "l2": functional.mse_loss,
    "huber": functional.smooth_l1_loss,
}


@dataclass(frozen=True, kw_only=True)
class Losses:
    """The autoencoder's losses of one batch, scalars on the device.

    Attributes:
        total: what to differentiate.
        pixel: mean over all values.
        perceptual: mean over samples, before its weight.
        regularization: the KL divergence in nats for each value, or the codebook's loss, before its weight.
        adversarial: the adversary's generator loss with its weight, before the adaptive one; None before the start step.
        feature_matching: before its weight.
        adaptive_weight: lambda; None with a fixed weight, and before the start step.
    """

    total: Tensor
    pixel: Tensor
    perceptual: Tensor | None = None
    regularization: Tensor | None = None
    adversarial: Tensor | None = None
    feature_matching: Tensor | None = None
    adaptive_weight: Tensor | None = None

    def as_dict(self) -> dict[str, float]:
        """Numbers for a log line or a tracker; reads the tensors (synchronizes)."""
        return {name: float(value.detach()) for name, value in vars(self).items() if value is not None}


@final
class Objective:
    """``pixel + perceptual + regularization + lambda adversarial``: VQGAN's and latent diffusion's objective.

    Args:
        adversary: judges images; its `weight`, `start_step` and `discriminator_start_step` count here.
        last_layer: of the decoder, for the adaptive weight (`last_layer(model)` finds it); None: lambda is 1.
        pixel: the distance of pixels, by name or as a function of reconstructions and images to a scalar.
        perceptual: a module or function of reconstructions and images, such as `advloss.load_lpips()`; a module is frozen.
        perceptual_weight: of that term.
        regularization_weight: of the KL divergence (1e-6 in latent diffusion, which has sums over values where we have means)
            or the codebook term (1 in VQGAN).
        feature_matching: weight of that term; it counts with the adversarial loss, before lambda.
        ramp_steps: the adversarial loss rises to its whole weight within so many steps.
        crop: side of the window that the adversary sees of large images, at a place of its own in every step.

    Raises:
        OptionError: an option outside these.
        CombinationError: feature matching with an adversary that augments.
    """

    def __init__(
        self,
        adversary: Adversary,
        last_layer: Tensor | None = None,
        *,
        pixel: Pixel | Callable[[Tensor, Tensor], Tensor] = "l1",
        perceptual: Perceptual | None = None,
        perceptual_weight: float = 1.0,
        regularization_weight: float = 1e-6,
        feature_matching: float = 0.0,
        ramp_steps: int = 0,
        crop: int | None = None,
    ) -> None:
        if isinstance(pixel, str) and pixel not in _PIXEL:
            raise OptionError(f"pixel={pixel!r}: there are {', '.join(_PIXEL)}, or give a function")
        _check_weights(
            perceptual_weight=perceptual_weight,
            regularization_weight=regularization_weight,
            feature_matching=feature_matching,
        )
        if not _whole(ramp_steps, 0) or not (crop is None or _whole(crop, 1)):
            raise OptionError(f"ramp_steps={ramp_steps!r}, crop={crop!r}: give steps from 0 on, and a side from 1 on")
        if isinstance(perceptual, nn.Module):
            perceptual.requires_grad_(False).eval()
        self.adversary = adversary
        self.adaptive = None if last_layer is None else AdaptiveWeight(adversary, last_layer)
        self.pixel = _PIXEL[pixel] if isinstance(pixel, str) else pixel
        self.perceptual, self.perceptual_weight = perceptual, perceptual_weight
        self.regularization_weight = regularization_weight
        self.matching = FeatureMatching(adversary) if feature_matching else None
        self.matching_weight = feature_matching
        self.ramp_steps, self.crop = ramp_steps, crop

    def __call__(self, reconstruction: Reconstruction, images: Tensor) -> Losses:
        """The autoencoder's losses.

        Raises:
            InputError: the reconstruction has another shape than `images`, a loss is no scalar, or what `last_layer` was
                is frozen or not in the graph; in the first step, not at the start step.
        """
        samples, regularization = reconstruction
        _check(samples, images)
        if torch.is_grad_enabled() and not samples.requires_grad:
            raise InputError("no gradient reaches the autoencoder from its reconstruction: is all of it frozen?")
        pixel = reconstruction_loss = _scalar("pixel loss", self.pixel(samples, images))
        perceptual = None
        if self.perceptual is not None:
            perceptual = perceptual_distance(self.perceptual, samples, images)
            reconstruction_loss = pixel + self.perceptual_weight * perceptual
        adversarial, matching, pulled = self._adversarial(samples, images)
        total = reconstruction_loss
        if self.adaptive is not None:  # before the start step, too: it looks for mistakes
            pull = total.new_zeros(()) if pulled is None else pulled
            total = self.adaptive(samples, total, pull, weight=self.adversary.weight * self._ramp())
        elif pulled is not None:
            total = total + pulled
        if regularization is not None and self.regularization_weight:
            total = total + self.regularization_weight * _scalar("regularization", regularization)
        return Losses(
            total=total,
            pixel=pixel,
            perceptual=perceptual,
            regularization=regularization,
            adversarial=adversarial,
            feature_matching=matching,
            adaptive_weight=None if self.adaptive is None else self.adaptive.value,
        )

    def discriminator_step(self, reconstruction: Reconstruction, images: Tensor) -> Report:
        """The discriminator's turn on the same batch. Call it in every step, also before the start steps."""
        images, samples = self._window("discriminator", images, reconstruction.samples)
        return self.adversary.discriminator_step(images, samples)

    def _adversarial(self, samples: Tensor, images: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The adversary's loss, the matching term, and what both pull with; None before the start step."""
        if self.adversary.step < self.adversary.start_step:
            return None, None, None
        images, samples = self._window("generator", images, samples)
        if self.matching is None:
            adversarial, matching = self.adversary.generator_loss(samples, images), None
            return adversarial, matching, self._ramp() * adversarial
        adversarial, matching = self.matching(samples, images)
        pull = adversarial if matching is None else adversarial + self.matching_weight * matching
        return adversarial, matching, self._ramp() * pull

    def _ramp(self) -> float:
        """The share of the adversary's weight that counts in this step."""
        done = self.adversary.step - self.adversary.start_step + 1
        return min(1.0, max(0, done) / self.ramp_steps) if self.ramp_steps else 1.0

    def _window(self, player: str, *batches: Tensor) -> tuple[Tensor, ...]:
        """The same window of all batches, a function of the step and the player: nothing is drawn from the script's
        random numbers, and nothing needs to be saved."""
        if self.crop is None:
            return batches
        height, width = batches[0].shape[-2:]
        draws = torch.Generator().manual_seed(2 * self.adversary.step + (player == "generator"))
        top = int(torch.randint(max(height - self.crop, 0) + 1, (), generator=draws))
        left = int(torch.randint(max(width - self.crop, 0) + 1, (), generator=draws))
        return tuple(b[..., top : top + self.crop, left : left + self.crop] for b in batches)


def _check(samples: Tensor, images: Tensor) -> None:
    if samples.shape != images.shape:
        way_out = (
            "crop images to sides that the autoencoder's downsampling divides (videos: also to frames that it takes)"
            if samples.shape[:2] == images.shape[:2]
            else "give the images that the autoencoder was given, not latents"
        )
        raise InputError(
            f"the reconstruction has shape {tuple(samples.shape)}, the images {tuple(images.shape)}: {way_out}"
        )


def _scalar(name: str, value: Any) -> Tensor:
    """Raise InputError unless `value` is one number."""
    if not isinstance(value, Tensor) or value.numel() != 1:
        given = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else f"a {type(value).__name__}"
        raise InputError(f"the {name} is {given}: return a scalar tensor, such as its mean")
    return value.squeeze() if value.ndim else value


def _check_weights(**weights: Any) -> None:
    for name, weight in weights.items():
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 <= weight < math.inf:
            raise OptionError(f"{name}={weight!r}: give a finite number, 0 or more")


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
