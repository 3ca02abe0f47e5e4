"""Logits are one tensor `(N, ...)`, or a list of them: one a scale or head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import torch
from torch import Tensor

Logits: TypeAlias = Tensor | Sequence[Tensor]


def as_scales(logits: Logits) -> tuple[Tensor, ...]:
    """The tensors of `logits`, one a scale."""
    return (logits,) if isinstance(logits, Tensor) else tuple(logits)


def logit_sum(logits: Logits) -> Tensor:
    """Sum over samples, positions and scales: what R1 and its kind differentiate."""
    return sum((scale.sum() for scale in as_scales(logits)), start=as_scales(logits)[0].new_zeros(()))


def logit_mean(logits: Logits) -> Tensor:
    """Mean within each scale, then over scales."""
    scales = as_scales(logits)
    return sum((scale.mean() for scale in scales), start=scales[0].new_zeros(())) / len(scales)


def at_least_float32(logits: Logits) -> Logits:
    """Half-precision logits as float32: a loss squares and sums them, where half overflows or rounds too early."""
    if isinstance(logits, Tensor):
        return logits.to(torch.promote_types(logits.dtype, torch.float32))
    return [scale.to(torch.promote_types(scale.dtype, torch.float32)) for scale in logits]


def detach(logits: Logits) -> tuple[Tensor, ...]:
    """The scales, cut from their graph."""
    return tuple(scale.detach() for scale in as_scales(logits))
