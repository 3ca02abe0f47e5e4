"""What tells one VAE from another: latents of the one mean nothing to a teacher that was trained with the other."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from advloss import StateError

ALIKE = 0.01  # of a parameter's norm; bfloat16 moves it by a sixth of this, as seen along one direction


def signature(vae: nn.Module) -> Tensor:
    """`(1 + P, 3)` in 64 bits: first scaling and shift of its latents, then a row for each of its P parameters.

    Such a row has the parameter's norm, and its scalar products with the cosines and sines of 0, 1, 2, ... (times the root of
    2). Errors of a given size, relative to the norm, move each of the three by about as much or less, however they are spread.
    """
    config: Any = getattr(vae, "config", {})
    latents = [config.get("scaling_factor") or 1.0, config.get("shift_factor") or 0.0, 0.0]
    return torch.stack([torch.tensor(latents, dtype=torch.float64), *map(_row, vae.parameters())])


def check_signature(vae: nn.Module, given: Tensor, what: str) -> None:
    """Raise StateError unless `given` is this VAE's signature, but for weights that are rounded to 16 bits.

    Args:
        what: was made with the VAE of that signature, for the message.
    """
    if given.ndim != 2:
        raise StateError(
            f"{what} was made by an earlier version, which did not keep enough to tell one VAE from another: make it anew"
        )
    ours = signature(vae)
    if not torch.allclose(ours[0], given[0], rtol=1e-6, atol=1e-9):
        (scale, shift), (theirs, moved) = ours[0, :2].tolist(), given[0, :2].tolist()
        raise StateError(
            f"{what} was made with another VAE than this teacher's, of scaling_factor={theirs:g} and shift_factor={moved:g} "
            f"in place of {scale:g} and {shift:g}: make it anew"
        )
    if ours.shape != given.shape or not bool(((ours - given).abs()[1:] <= ALIKE * ours[1:, :1]).all()):
        raise StateError(f"{what} was made with another VAE than this teacher's, one of other weights: make it anew")


def _row(parameter: Tensor) -> Tensor:
    values = parameter.detach().cpu().double().flatten()
    phases = torch.arange(len(values), dtype=torch.float64)
    turned = [values.dot(wave) * math.sqrt(2) for wave in (phases.cos(), phases.sin())]
    return torch.stack([values.norm(), *turned])
