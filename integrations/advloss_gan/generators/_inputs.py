"""What the generators ask of their options, latents and labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from advloss import InputError, OptionError


def check_positive(**options: Any) -> None:
    """Raise OptionError unless every option is a whole number, 1 or more; `num_classes` may be None."""
    for name, value in options.items():
        if name == "num_classes" and value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise OptionError(f"{name}={value!r}: give a whole number, 1 or more")


def doublings(resolution: int) -> int:
    """How often a side of 4 doubles up to `resolution`.

    Raises:
        OptionError: never, or not at all.
    """
    check_positive(resolution=resolution)
    count = (resolution // 4).bit_length() - 1
    if count < 1 or 4 << count != resolution:
        raise OptionError(f"resolution={resolution}: give a power of two, 8 or more")
    return count


def join(latent: Tensor, labels: Tensor | None, latent_features: int, num_classes: int | None) -> Tensor:
    """`latent` `(N, latent_features)` with the one-hot class appended, where there are classes (arXiv:1411.1784).

    Raises:
        InputError: a latent of another size, or labels that are missing, too many or not asked for.
    """
    if latent.ndim != 2 or latent.shape[1] != latent_features:
        raise InputError(f"the latent has shape {tuple(latent.shape)}; this generator takes (N, {latent_features})")
    if num_classes is None:
        if labels is not None:
            raise InputError("labels were given to a generator without classes; build it with num_classes=")
        return latent
    if labels is None or labels.shape != latent.shape[:1] or labels.is_floating_point():
        given = "none" if labels is None else f"{labels.dtype} {tuple(labels.shape)}"
        raise InputError(f"this generator takes labels ({len(latent)},) of {num_classes} classes; given: {given}")
    return torch.cat([latent, one_hot(labels, num_classes).to(latent)], dim=1)
