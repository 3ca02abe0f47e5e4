"""Terms of the discriminator's loss that look at more than logits."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import Any, Literal

import torch
from torch import Tensor, nn

from advloss._condition import Condition
from advloss._logits import Logits, logit_sum
from advloss.errors import OptionError

Leaf = Literal["real", "fake", "real_features", "fake_features"]


class Regularizer(nn.Module, ABC):
    """A term with its own weight, as its paper writes it. State (moving averages) lives in buffers.

    Attributes:
        weight: the paper's factor.
        every: the adversary computes the term on every so many-th step and multiplies it by `every` there.
        second_order: what the term differentiates the discriminator's gradient through (double backward):
            its samples, only its heads' features, or None.
        differentiates: which inputs the term takes gradients by. The adversary hands those in as leaves that
            require gradients, so that one forward serves the loss and the term; `leaf` does the same elsewhere.
    """

    second_order: Literal["samples", "features"] | None = None
    differentiates: frozenset[Leaf] = frozenset()

    def __init__(self, *, weight: float, every: int = 1) -> None:
        super().__init__()
        if not 0 <= weight < math.inf:
            raise OptionError(f"{type(self).__name__}: weight={weight!r}; give a finite number that is not negative")
        if not (isinstance(every, int) and every >= 1):
            raise OptionError(f"{type(self).__name__}: every={every!r}; give a whole number of steps, 1 or more")
        self.weight = float(weight)
        self.every = every

    @abstractmethod
    def forward(
        self,
        discriminator: Any,
        real: Tensor,
        fake: Tensor,
        condition: Condition | None = None,
        fake_condition: Condition | None = None,
    ) -> Tensor:
        """The weighted term, a scalar whose gradient reaches the discriminator's parameters.

        Args:
            discriminator: called as ``discriminator(samples, condition)``.
            real: real samples `(N, C, ...)`.
            fake: samples that were made, detached, `(M, C, ...)`.
            condition: what the real samples are conditioned on.
            fake_condition: the same for the fakes; None means `condition`.
        """

    def after_step(self, discriminator: nn.Module, real_logits: Logits, fake_logits: Logits) -> None:
        """Called after each step that the optimizer took, with detached logits. Does nothing here."""


def leaf(samples: Tensor) -> Tensor:
    """`samples` as a leaf that requires gradients: itself when it is one, else a detached view of it."""
    return samples if samples.is_leaf and samples.requires_grad else samples.detach().requires_grad_()


def input_gradient(logits: Logits, inputs: list[Tensor]) -> tuple[Tensor, ...]:
    """Gradient of the logits' *sum* by `inputs`, kept differentiable: one sample's gradient does not depend on N."""
    return torch.autograd.grad(logit_sum(logits), inputs, create_graph=True)
