"""DiffAugment (Zhao et al. 2020)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor

from advloss import Augmentation, InputError, OptionError

_TRANSFORMS = ("color", "translation", "cutout")


@final
class DiffAugment(Augmentation):
    """Random colour, translation and cutout, drawn for each sample (arXiv:2006.10738).

    - ``color``: brightness ``x + U(-0.5, 0.5)``; saturation, distances from the pixel's mean over channels times
      ``U(0, 2)``; contrast, distances from the sample's mean times ``U(0.5, 1.5)``. Values may leave [-1, 1].
    - ``translation``: by up to `translation` of the size along both axes, in whole pixels; zeros come in.
    - ``cutout``: a rectangle of `cutout` of the size along both axes is set to zero; it may reach over the border.

    Takes images `(N, C, H, W)` of any number of channels and returns the same shape. Differentiable twice by the
    samples. The defaults are the authors'.

    Args:
        policy: the transforms in the order of their use, separated by commas.
        translation: the largest shift as a fraction of the size; 1/8 in the paper.
        cutout: the rectangle's sides as a fraction of the size; 1/2 in the paper.

    Raises:
        OptionError: an option outside these.
        InputError: samples that are no floating-point images.
    """

    def __init__(
        self, *, policy: str = "color,translation,cutout", translation: float = 0.125, cutout: float = 0.5
    ) -> None:
        super().__init__()
        names = tuple(name.strip() for name in policy.split(",")) if isinstance(policy, str) else ()
        if not names or not set(names) <= set(_TRANSFORMS):
            raise OptionError(f"DiffAugment: policy={policy!r}; join some of {', '.join(_TRANSFORMS)} by commas")
        for option, value in (("translation", translation), ("cutout", cutout)):
            if not 0 <= value <= 1:
                raise OptionError(f"DiffAugment: {option}={value!r}; give a fraction of the size, from 0 to 1")
        self.policy, self.translation, self.cutout = names, float(translation), float(cutout)

    def forward(self, samples: Tensor) -> Tensor:
        if samples.ndim != 4 or not samples.is_floating_point():
            raise InputError(
                f"DiffAugment takes floating-point images (N, C, H, W); given: {samples.dtype} {tuple(samples.shape)}"
            )
        for name in self.policy:
            if name == "color":
                samples = _color(samples)
            elif name == "translation":
                samples = _translate(samples, self.translation)
            else:
                samples = _cut_out(samples, self.cutout)
        return samples


def _color(samples: Tensor) -> Tensor:
    """Brightness, saturation, contrast."""
    brightness, saturation, contrast = (
        torch.rand((len(samples), 1, 1, 1), dtype=samples.dtype, device=samples.device) for _ in range(3)
    )
    samples = samples + (brightness - 0.5)
    grey = samples.mean(1, keepdim=True)
    samples = grey + (samples - grey) * (2 * saturation)
    mean = samples.mean((1, 2, 3), keepdim=True)
    return mean + (samples - mean) * (contrast + 0.5)


def _translate(samples: Tensor, ratio: float) -> Tensor:
    """Shift each sample: `out[h, w] = in[h - down, w - right]` where there is one, else zero."""
    count, channels, height, width = samples.shape
    inside = torch.ones((count, 1, height, width), dtype=torch.bool, device=samples.device)
    for axis, size in ((2, height), (3, width)):
        reach = int(size * ratio + 0.5)
        shift = torch.randint(-reach, reach + 1, (count, 1), device=samples.device)
        source = torch.arange(size, device=samples.device) - shift
        shape = (count, 1, size, 1) if axis == 2 else (count, 1, 1, size)
        inside = inside & ((source >= 0) & (source < size)).view(shape)
        # Wrapped around, so that no source is read twice: the backward pass adds nothing up.
        samples = samples.gather(axis, (source % size).view(shape).expand(count, channels, height, width))
    return samples.masked_fill(~inside, 0)


def _cut_out(samples: Tensor, ratio: float) -> Tensor:
    """Zero a rectangle whose centre is uniform over the image."""
    count, _, height, width = samples.shape
    hole = torch.ones((count, 1, 1, 1), dtype=torch.bool, device=samples.device)
    for axis, size in ((2, height), (3, width)):
        side = int(size * ratio + 0.5)
        centre = torch.randint(0, size + (1 - side % 2), (count, 1), device=samples.device)
        place = torch.arange(size, device=samples.device) - (centre - side // 2)
        shape = (count, 1, size, 1) if axis == 2 else (count, 1, 1, size)
        hole = hole & ((place >= 0) & (place < side)).view(shape)
    return samples.masked_fill(hole, 0)
