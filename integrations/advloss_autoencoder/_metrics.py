"""What an autoencoder keeps: pixels, structure, perception, sharpness, and the distribution of features."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from advloss import InputError, Perceptual, perceptual_distance
from advloss_autoencoder._autoencoder import Autoencoder

Features = Callable[[Tensor], Tensor]
"""From images `(N, 3, H, W)` to feature vectors `(M, features)`: M may be larger than N, patch by patch."""

SMALLEST = 13  # pixels, of both layers of `PatchFeatures`; the window of SSIM has 11


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Reconstructions beside their images.

    Attributes:
        psnr: peak signal-to-noise ratio in dB, mean over images; higher is better.
        ssim: structural similarity, mean over images; 1 at best.
        sharpness: energy of the reconstructions at high frequencies, above a quarter of the sampling rate, over that of
            the images; 1 at best, below it blurred, above it noisy.
        frechet: Fréchet distance of features; 0 at best. Which features is the caller's choice: compare only alike.
        lpips: perceptual distance, where one was given.
    """

    psnr: float
    ssim: float
    sharpness: float
    frechet: float
    lpips: float | None = None

    def as_dict(self) -> dict[str, float]:
        """Numbers for a file or a tracker."""
        return {name: value for name, value in vars(self).items() if value is not None}


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Inside, `model` is in eval mode; after it each of its parts is in the mode that it was in."""
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@torch.no_grad()
def evaluate(
    autoencoder: nn.Module,
    images: Iterable[Tensor],
    *,
    features: Features | None = None,
    lpips: Perceptual | None = None,
    device: torch.device | str = "cpu",
) -> Figures:
    """Measure `autoencoder` on whole images.

    Args:
        autoencoder: a diffusers autoencoder or any other that `Autoencoder` can call; latents are the posterior's mode.
        images: each `(3, H, W)` in [-1, 1], of any floating dtype, with sides that the autoencoder takes, of 13 pixels or more.
        features: for the Fréchet distance; default `PatchFeatures`.
        lpips: a perceptual distance.

    Raises:
        InputError: there are no images, one is none or too small, or a reconstruction has another size.
    """
    from torchmetrics.functional.image import structural_similarity_index_measure

    inner = autoencoder.model if isinstance(autoencoder, Autoencoder) else autoencoder
    call = Autoencoder(inner, sample_posterior=False)
    features = features or PatchFeatures().to(device)
    rows: list[tuple[float, ...]] = []
    energies, real, fake, distances = [], [], [], []
    dtype = next((p.dtype for p in inner.parameters()), torch.float32)
    for image in images:
        check_image(image)
        batch = image[None].to(device).float()
        with evaluating(inner):
            made = call(batch.to(dtype)).samples.float().clamp(-1, 1)
        if made.shape != batch.shape:
            raise InputError(
                f"the reconstruction of an image of shape {tuple(batch.shape[1:])} has shape {tuple(made.shape[1:])}: "
                "give images with sides that the autoencoder's downsampling divides"
            )
        error = (made - batch).square().mean().double()
        ssim = structural_similarity_index_measure(made, batch, data_range=2.0)
        rows.append((10 * math.log10(4 / max(float(error), 1e-12)), float(ssim)))
        energies.append((float(high_frequency_energy(made)), float(high_frequency_energy(batch))))
        fake.append(features(made))
        real.append(features(batch))
        if lpips is not None:
            distances.append(float(perceptual_distance(lpips, made, batch)))
    if not rows:
        raise InputError("there are no images to evaluate on")
    made_energy, own_energy = (sum(column) for column in zip(*energies))
    return Figures(
        psnr=sum(row[0] for row in rows) / len(rows),
        ssim=sum(row[1] for row in rows) / len(rows),
        sharpness=made_energy / max(own_energy, 1e-12),
        frechet=frechet_distance(torch.cat(fake), torch.cat(real)),
        lpips=sum(distances) / len(distances) if distances else None,
    )


def check_image(image: Any) -> None:
    """Raise InputError unless `image` is one that can be measured."""
    if not isinstance(image, Tensor) or image.ndim != 3:
        given = f"has shape {tuple(image.shape)}" if isinstance(image, Tensor) else f"is a {type(image).__name__}"
        raise InputError(
            f"an image {given}; give each as a tensor (3, H, W) of its own, no batches of a loader; videos are not measured"
        )
    if not image.is_floating_point():
        raise InputError(f"an image has dtype {image.dtype}: give floats in [-1, 1] (x / 127.5 - 1)")
    if min(image.shape[1:]) < SMALLEST:
        raise InputError(
            f"an image has sides {tuple(image.shape[1:])}; the windows of the figures ask for {SMALLEST} pixels or more"
        )


def high_frequency_energy(images: Tensor, cutoff: float = 0.25) -> Tensor:
    """Spectral power a pixel of images `(N, C, H, W)` above `cutoff` cycles a pixel, in any direction, mean over N and C.

    A Hann window keeps the jump from one border to the other out of the spectrum.
    """
    height, width = images.shape[-2:]
    window = torch.outer(*(torch.hann_window(n, periodic=False, dtype=torch.float64) for n in (height, width)))
    centred = images.double() - images.double().mean((-2, -1), keepdim=True)
    spectrum = torch.fft.rfft2(centred * window.to(images.device))
    rows, columns = torch.fft.fftfreq(height, dtype=torch.float64), torch.fft.rfftfreq(width, dtype=torch.float64)
    twice = torch.where((columns > 0) & (columns < 0.5), 2.0, 1.0)  # a real image's other half
    weight = twice * (torch.hypot(rows[:, None], columns) > cutoff) / (window.square().sum() * height * width)
    return (spectrum.abs().square() * weight.to(images.device)).sum((-2, -1)).mean()


@torch.no_grad()
def frechet_distance(first: Tensor, second: Tensor) -> float:
    """Between the normal distributions with the means and covariances of two sets of features `(N, features)`.

    ``|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2))`` (arXiv:1706.08500), in float64.

    Raises:
        InputError: fewer than two features in a set, or features of different lengths.
    """
    if first.ndim != 2 or second.ndim != 2 or first.shape[1] != second.shape[1] or min(len(first), len(second)) < 2:
        raise InputError(
            f"features have shapes {tuple(first.shape)} and {tuple(second.shape)}; give (N, features), N > 1"
        )
    first, second = first.double(), second.double()
    covariances = [torch.atleast_2d(x.T.cov()) for x in (first, second)]
    roots = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp_min(0).sqrt()
    trace = sum(torch.trace(c) for c in covariances) - 2 * roots.sum()
    return float((first.mean(0) - second.mean(0)).square().sum() + trace)


class PatchFeatures(nn.Module):
    """Local features without pretrained weights: fixed random filters of two layers, each place an `(M, features)` row.

    They see edges and texture, not objects. For figures to publish, pass an Inception or DINO network instead.

    Args:
        width: features.
    """

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):  # first weights, which are not used, would draw from the script's
            self.layers = nn.Sequential(
                nn.Conv2d(3, width, 5, 2), nn.LeakyReLU(0.2), nn.Conv2d(width, width, 5, 4), nn.LeakyReLU(0.2)
            )
        draws = torch.Generator().manual_seed(0)
        for parameter in self.layers.parameters():
            fan_in = parameter[0].numel() if parameter.ndim > 1 else 1
            spread = (2 / fan_in) ** 0.5 if parameter.ndim > 1 else 0.0
            parameter.data.normal_(0, spread, generator=draws) if spread else parameter.data.zero_()
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """Features `(M, width)` of images `(N, 3, H, W)`."""
        return self.layers(images).movedim(1, -1).flatten(0, -2)
