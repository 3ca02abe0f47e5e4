"""The gradient of the generator's loss where it reaches the fakes, measured as it passes by."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class PassingGradient:
    """Measures in the script's own backward: no second one is needed, and no value goes to the host."""

    def __init__(self) -> None:
        self._passed: tuple[Tensor, Tensor] | None = None  # the gradient's norm, and what the loss was multiplied with

    def watch(self, fake: Tensor, loss: Tensor) -> None:
        """Measure when a backward passes from `loss`, a mean over samples, to `fake`. It changes no gradient."""
        if not (fake.requires_grad and loss.requires_grad):
            return
        factors: list[Tensor] = []  # what the script makes of the loss: weights, scalers, parts of an accumulation

        def measure(gradient: Tensor) -> None:
            if not factors:  # a term of something that listens in on the forward, without this loss
                return
            dtype = torch.promote_types(gradient.dtype, torch.float32)
            norm = torch.linalg.vector_norm(gradient.detach(), dtype=dtype) * math.sqrt(len(gradient))
            self._passed = norm, factors.pop().detach()

        loss.register_hook(factors.append)
        fake.register_hook(measure)

    @property
    def norm(self) -> Tensor | None:
        """Root mean square over samples of the 2-norm of the gradient by one fake of its own loss: a number that depends
        on neither the batch's size, the adversary's weight nor a gradient scaler. None before the first backward."""
        if self._passed is None:
            return None
        norm, factor = self._passed
        return norm / factor.abs().clamp_min(torch.finfo(factor.dtype).tiny)

    def number(self) -> float | None:
        """The norm for saved state; None where it is not finite."""
        norm = math.nan if self.norm is None else float(self.norm)
        return norm if math.isfinite(norm) else None

    def take_up(self, number: float | None) -> None:
        """Take up what `number` returned."""
        one = torch.ones((), dtype=torch.float64)
        self._passed = None if number is None else (number * one, one)
