"""DRAGAN's gradient penalty (Kodali et al. 2017)."""

from __future__ import annotations

from typing import Any, Literal, final

import torch
from torch import Tensor

from advloss import Condition, OptionError, Regularizer
from advloss_regularizers._shared import slope_penalty


@final
class Dragan(Regularizer):
    """``weight E (||grad D(x + spread std(x) U)||_2 - target)^2`` around real samples (arXiv:1705.07215).

    U is uniform in [0, 1) for each element and std(x) one number: the (population) standard deviation of all elements
    of the batch, which couples its samples. The norm runs over all elements of a sample. The authors' code draws the
    points on the line from x to this perturbed sample; here they are the perturbed samples themselves.

    Args:
        weight: lambda; 10 in the paper.
        spread: how far the perturbation reaches, in standard deviations; 0.5 in the authors' code.
        target: the slope that is aimed at, k; 1 in the paper.
        every: applied by the adversary; the paper has the term on every step.

    Raises:
        OptionError: an option outside these.
    """

    second_order: Literal["samples", "features"] | None = "samples"

    def __init__(self, *, weight: float = 10.0, spread: float = 0.5, target: float = 1.0, every: int = 1) -> None:
        super().__init__(weight=weight, every=every)
        if not spread >= 0:
            raise OptionError(f"Dragan: spread={spread!r}; give a number that is not negative, such as 0.5")
        if not target >= 0:
            raise OptionError(f"Dragan: target={target!r}; give a slope that is not negative, such as 1.0")
        self.spread, self.target = float(spread), float(target)

    def forward(
        self,
        discriminator: Any,
        real: Tensor,
        fake: Tensor,
        condition: Condition | None = None,
        fake_condition: Condition | None = None,
    ) -> Tensor:
        with torch.no_grad():
            around = real + self.spread * real.std(correction=0) * torch.rand_like(real)
        return self.weight * slope_penalty(discriminator, around, condition, self.target)
