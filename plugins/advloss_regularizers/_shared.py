"""What several terms need: norms that stay finite, and samples cut from their maker."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from advloss import Condition, input_gradient, leaf


def at_least_float32(values: Tensor) -> Tensor:
    """`values`, half-precision ones as float32: squares and sums of them overflow or round too early."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def cut(samples: Tensor) -> Tensor:
    """`samples` without the graph that made them. A leaf stays the same object, so that its forward can be shared."""
    return samples if samples.is_leaf else samples.detach()


def slope_penalty(discriminator: Any, samples: Tensor, condition: Condition | None, target: float) -> Tensor:
    """``E (||grad_x D(x)||_2 - target)^2`` at `samples`, the norm over all elements of a sample.

    The norm's gradient is zero where the norm is: a flat discriminator gives finite gradients.
    """
    points = leaf(samples)
    (gradient,) = input_gradient(discriminator(points, condition), [points])
    norms = torch.linalg.vector_norm(at_least_float32(gradient).flatten(1), dim=1)
    return (norms - target).square().mean()
