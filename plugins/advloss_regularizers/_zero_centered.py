"""Zero-centred gradient penalties: what R1 and R2 have in common."""

from __future__ import annotations

from abc import ABC
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call

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
        points = [samples]
        if self.inputs == "features":
            self._check_features(discriminator)
            points = discriminator.features(cut(samples))
        term = self._exact if self.method == "exact" else self._finite_difference
        return self.weight / 2 * term(discriminator, points, condition, len(samples))

    def _exact(self, discriminator: Any, points: list[Tensor], condition: Condition | None, count: int) -> Tensor:
        leaves = [leaf(point) for point in points]
        if all(new is old for new, old in zip(leaves, points)):
            leaves = points  # the list as it was handed out, so that its forward can be shared
        gradients = input_gradient(self._logits(discriminator, leaves, condition), list(leaves))
        squares = [at_least_float32(gradient).square().sum() for gradient in gradients]
        return sum(squares[1:], start=squares[0]) / count

    def _finite_difference(
        self, discriminator: Any, points: list[Tensor], condition: Condition | None, count: int
    ) -> Tensor:
        points = [point.detach() for point in points]
        moved = [point + self.sigma * torch.randn_like(point) for point in points]
        with _rewound_after(points[0].device):
            here = self._logits(_snapshot(discriminator), points, condition)
        there = self._logits(_snapshot(discriminator), moved, condition)
        changes = [
            (at_least_float32(after) - at_least_float32(before)).reshape(count, -1).sum(1)
            for before, after in zip(as_scales(here), as_scales(there))
        ]
        return sum(changes[1:], start=changes[0]).square().mean() / self.sigma**2

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


class _Copy:
    """`discriminator` on copies of its buffers: what its forwards move (spectral norm's vectors, say) moves there."""

    def __init__(self, discriminator: nn.Module) -> None:
        self._discriminator = discriminator

    def __call__(self, samples: Tensor, condition: Condition | None) -> Logits:
        return self._run(self._discriminator, samples, condition)

    def heads(self, features: list[Tensor], condition: Condition | None) -> Logits:
        return self._run(self._discriminator.heads, features, condition)

    @staticmethod
    def _run(module: Any, *args: Any) -> Any:
        if not isinstance(module, nn.Module):
            return module(*args)
        return functional_call(module, {name: buffer.clone() for name, buffer in module.named_buffers()}, args)


def _snapshot(discriminator: Any) -> Any:
    """The discriminator in its present state, which calls leave as it is: an adversary's wrapper makes one itself."""
    if hasattr(discriminator, "snapshot"):
        return discriminator.snapshot()
    return _Copy(discriminator) if isinstance(discriminator, nn.Module) else discriminator


def _rewound_after(device: torch.device) -> AbstractContextManager[None]:
    """What follows draws the same random numbers as what is inside."""
    if device.type in ("cuda", "xpu"):
        return torch.random.fork_rng([device], device_type=device.type)
    return torch.random.fork_rng([])
