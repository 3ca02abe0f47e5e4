"""Zero-centred gradient penalties: what R1 and R2 have in common."""

from __future__ import annotations

from abc import ABC
from typing import Any, Literal

import torch
from torch import Tensor

from advloss import CombinationError, Condition, Logits, OptionError, Regularizer, as_scales, input_gradient, leaf
from advloss_regularizers._shared import at_least_float32, cut


class ZeroCenteredPenalty(Regularizer, ABC):
    """``weight / 2 E ||grad_x D(x)||^2`` on one side's samples, exact or by finite differences.

    The gradient is that of D's *sum* over all its outputs, and the squared norm runs over all elements of a
    sample (all levels, by features): one sample's term depends neither on the batch size nor on the others.
    """

    def __init__(
        self,
        side: Literal["real", "fake"],
        *,
        weight: float,
        every: int,
        method: Literal["exact", "finite-difference"],
        sigma: float,
        inputs: Literal["samples", "features"],
    ) -> None:
        super().__init__(weight=weight, every=every)
        name = type(self).__name__
        if method not in ("exact", "finite-difference"):
            raise OptionError(f"{name}: method={method!r}; use 'exact' or 'finite-difference'")
        if inputs not in ("samples", "features"):
            raise OptionError(f"{name}: inputs={inputs!r}; use 'samples' or 'features'")
        if not sigma > 0:
            raise OptionError(f"{name}: sigma={sigma!r}; give a positive step in units of the inputs, such as 0.01")
        self.method, self.sigma, self.inputs = method, float(sigma), inputs
        if method == "exact":
            self.second_order = inputs
            if inputs == "samples":
                self.differentiates = frozenset({side})
            else:
                self.differentiates = frozenset({"real_features" if side == "real" else "fake_features"})

    def penalty(self, discriminator: Any, samples: Tensor, condition: Condition | None) -> Tensor:
        """The weighted term at `samples` `(N, ...)`: a scalar."""
        if self.inputs == "features":
            self._check_features(discriminator)
            points = list(discriminator.features(cut(samples)))
        else:
            points = [samples]
        term = self._exact if self.method == "exact" else self._finite_difference
        return self.weight / 2 * term(discriminator, points, condition, len(samples))

    def _exact(self, discriminator: Any, points: list[Tensor], condition: Condition | None, count: int) -> Tensor:
        points = [leaf(point) for point in points]
        gradients = input_gradient(self._logits(discriminator, points, condition), points)
        squares = [at_least_float32(gradient).square().sum() for gradient in gradients]
        return sum(squares[1:], start=squares[0]) / count

    def _finite_difference(
        self, discriminator: Any, points: list[Tensor], condition: Condition | None, count: int
    ) -> Tensor:
        points = [cut(point) for point in points]
        moved = [point + self.sigma * torch.randn_like(point) for point in points]
        device = points[0].device
        indices = [] if device.type == "cpu" else [device]
        # Both evaluations draw the same numbers (dropout, say): the generator is set back after the first.
        with torch.random.fork_rng(indices, device_type="cuda" if device.type == "cpu" else device.type):
            here = self._logits(discriminator, points, condition)
        there = self._logits(discriminator, moved, condition)
        changes = [
            (at_least_float32(after) - at_least_float32(before)).reshape(count, -1).sum(1)
            for before, after in zip(as_scales(here), as_scales(there))
        ]
        change = sum(changes[1:], start=changes[0])
        return change.square().mean() / self.sigma**2

    def _logits(self, discriminator: Any, points: list[Tensor], condition: Condition | None) -> Logits:
        if self.inputs == "features":
            return discriminator.heads(points, condition)
        return discriminator(points[0], condition)

    def _check_features(self, discriminator: Any) -> None:
        if not (hasattr(discriminator, "features") and hasattr(discriminator, "heads")):
            raise CombinationError(
                f"{type(self).__name__}(inputs='features') differentiates by the inputs of a discriminator's heads, "
                f"and {type(discriminator).__name__} has no features and heads: use inputs='samples', or wrap frozen "
                "features and heads in advloss.FeatureDiscriminator"
            )
