"""What super-resolution reports: PSNR and SSIM on luma without the border, perceptual distances, high frequencies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional

from advloss import InputError, Perceptual, perceptual_distance
from advloss_superres._bicubic import round_to_bytes


@dataclass(frozen=True, kw_only=True)
class Figures:
    """Made images beside their originals.

    Attributes:
        psnr: peak signal-to-noise ratio of luma in dB, mean over images; higher is better.
        ssim: structural similarity of luma, mean over images; 1 at best.
        high_frequency: energy of luma at high frequencies over that of the original, mean over images; 1 at best, below
            it blurred, above it noisy.
        distances: perceptual ones, such as LPIPS, by name, where they were given; 0 at best.
    """

    psnr: float
    ssim: float
    high_frequency: float
    distances: Mapping[str, float] = field(default_factory=dict)

    def as_dict(self) -> dict[str, float]:
        """Numbers for a file or a tracker."""
        return {"psnr": self.psnr, "ssim": self.ssim, "high_frequency": self.high_frequency, **self.distances}


@torch.no_grad()
def evaluate(
    make: Callable[[Tensor], Tensor],
    pairs: Iterable[tuple[Tensor, Tensor]],
    *,
    border: int,
    distances: Mapping[str, Perceptual] | None = None,
    device: torch.device | str = "cpu",
) -> Figures:
    """Measure what `make` makes of low-resolution images, each rounded to 8 bits as a file would be.

    Args:
        make: a network in eval mode, or any function from `(1, C, h, w)` to `(1, C, H, W)`, both in [-1, 1].
        pairs: low-resolution images `(C, h, w)` and originals `(C, H, W)` in [-1, 1].
        border: pixels that are cut off on every side before PSNR and SSIM; the field cuts as many as the scale.
        distances: perceptual distances by name.

    Raises:
        InputError: there are no pairs, an image is none, or one is made in another size than its original.
    """
    rows: list[tuple[float, float, float]] = []
    seen: dict[str, list[float]] = {name: [] for name in distances or {}}
    for low, high in pairs:
        for image in (low, high):
            if image.dim() != 3 or not image.is_floating_point():
                raise InputError(
                    f"an image has shape {tuple(image.shape)} and dtype {image.dtype}; give pairs of (C, H, W) each, no "
                    "batches of a loader, in floats in [-1, 1] (x / 127.5 - 1)"
                )
        original = high[None].to(device)
        made = round_to_bytes(make(low[None].to(device)).float())
        energies = [float(high_frequency_energy(luma(images))) for images in (made, original)]
        share = energies[0] / max(energies[1], 1e-12)
        rows.append((psnr(made, original, border), ssim(made, original, border), share))
        for name, distance in (distances or {}).items():
            seen[name].append(float(perceptual_distance(distance, made, original)))
    if not rows:
        raise InputError("there are no pairs to evaluate on")
    means = [sum(column) / len(rows) for column in zip(*rows)]
    return Figures(
        psnr=means[0],
        ssim=means[1],
        high_frequency=means[2],
        distances={name: sum(values) / len(values) for name, values in seen.items()},
    )


def luma(images: Tensor) -> Tensor:
    """Y of ITU-R BT.601 in [16, 235], `(N, 1, H, W)` in float64, of images `(N, 3, H, W)` or grey `(N, 1, H, W)` in [-1, 1]."""
    if images.shape[1] not in (1, 3):
        raise InputError(f"images have shape {tuple(images.shape)}; luma is of 3 channels, or of 1")
    weights = images.new_tensor([65.481, 128.553, 24.966], dtype=torch.float64).view(1, 3, 1, 1)
    return 16 + ((images.double() + 1) / 2 * weights).sum(1, keepdim=True)


def psnr(made: Tensor, original: Tensor, border: int = 0) -> float:
    """Of luma, in dB with a peak of 255, as MATLAB scripts and BasicSR report it; mean over images `(N, C, H, W)`."""
    first, second = _luma_inside(made, original, border)
    error = (first - second).square().flatten(1).mean(1)
    return float((10 * (255**2 / error.clamp_min(1e-10)).log10()).mean())


def ssim(made: Tensor, original: Tensor, border: int = 0) -> float:
    """Of luma (Wang et al. 2004): an 11 x 11 Gaussian window of 1.5 pixels, where it lies inside; mean over images.

    Raises:
        InputError: images smaller than the window.
    """
    first, second = _luma_inside(made, original, border)
    if min(first.shape[-2:]) < 11:
        raise InputError(f"images have sides {tuple(first.shape[-2:])} inside the border; the window of SSIM has 11")
    line = torch.exp(-(torch.arange(-5.0, 6.0, dtype=torch.float64) ** 2) / (2 * 1.5**2)).to(first.device)
    line = line / line.sum()

    def window(values: Tensor) -> Tensor:
        return functional.conv2d(functional.conv2d(values, line.view(1, 1, 11, 1)), line.view(1, 1, 1, 11))

    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    mean1, mean2 = window(first), window(second)
    variance1, variance2 = window(first * first) - mean1**2, window(second * second) - mean2**2
    covariance = window(first * second) - mean1 * mean2
    likeness = (2 * mean1 * mean2 + c1) * (2 * covariance + c2)
    return float((likeness / ((mean1**2 + mean2**2 + c1) * (variance1 + variance2 + c2))).mean())


def high_frequency_energy(images: Tensor, cutoff: float = 0.25) -> Tensor:
    """Spectral power a pixel of `(N, C, H, W)` above `cutoff` cycles a pixel, in any direction, mean over N and C.

    Above a quarter lies what an image at half the size cannot hold. A Hann window keeps the jump from one border to the
    other out of the spectrum.
    """
    height, width = images.shape[-2:]
    window = torch.outer(*(torch.hann_window(n, periodic=False, dtype=torch.float64) for n in (height, width)))
    centred = images.double() - images.double().mean((-2, -1), keepdim=True)
    spectrum = torch.fft.rfft2(centred * window.to(images.device))
    rows, columns = torch.fft.fftfreq(height, dtype=torch.float64), torch.fft.rfftfreq(width, dtype=torch.float64)
    twice = torch.where((columns > 0) & (columns < 0.5), 2.0, 1.0)  # a real image's other half
    weight = twice * (torch.hypot(rows[:, None], columns) > cutoff) / (window.square().sum() * height * width)
    return (spectrum.abs().square() * weight.to(images.device)).sum((-2, -1)).mean()


def _luma_inside(made: Tensor, original: Tensor, border: int) -> tuple[Tensor, Tensor]:
    if made.shape != original.shape:
        raise InputError(f"the made images have shape {tuple(made.shape)}, their originals {tuple(original.shape)}")
    if border < 0 or min(made.shape[-2:]) <= 2 * border:
        raise InputError(f"border={border!r} leaves nothing of images with sides {tuple(made.shape[-2:])}")
    inside = slice(border, -border or None)
    first, second = (luma(images)[..., inside, inside] for images in (made, original))
    return first, second
