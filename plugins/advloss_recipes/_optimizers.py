"""Optimizers as papers state them."""

from __future__ import annotations

import functools

import torch

from advloss import MakeOptimizer


def adam(lr: float, beta1: float, beta2: float) -> MakeOptimizer:
    """Adam with this learning rate and these betas, in the form that reads nothing back from the device."""
    return functools.partial(torch.optim.Adam, lr=lr, betas=(beta1, beta2), fused=True)


def rmsprop(lr: float) -> MakeOptimizer:
    """RMSprop with torch's defaults and this learning rate."""
    return functools.partial(torch.optim.RMSprop, lr=lr)
