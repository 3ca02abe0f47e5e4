"""WGAN-GP's gradient penalty (Gulrajani et al. 2017)."""

from __future__ import annotations

from typing import Any, Literal, final

import torch
from torch import Tensor

from advloss import Condition, InputError, OptionError, Regularizer
from advloss_regularizers._shared import slope_penalty


@final
class GradientPenalty(Regularizer):
    """``weight E (||grad D(x_hat)||_2 - target)^2``, x_hat uniform on the line between a real and a fake sample.

    ``x_hat = eps x + (1 - eps) G(z)`` with one eps a sample, uniform in [0, 1) (arXiv:1704.00028, eq. 3). The norm runs
    over all elements of a sample; the gradient is that of D's sum over all its outputs. x_hat lies between two samples
    and has one condition, so that both sides need the same one.

    Args:
        weight: lambda; 10 in the paper.
        target: the slope that is aimed at; 1 in the paper.
        every: applied by the adversary; the paper has the term on every step.

    Raises:
        OptionError: an option outside these.
        InputError: real and fake samples of different shapes, or under different conditions.
    """

    second_order: Literal["samples", "features"] | None = "samples"

    def __init__(self, *, weight: float = 10.0, target: float = 1.0, every: int = 1) -> None:
        super().__init__(weight=weight, every=every)
        if not target >= 0:
            raise OptionError(f"GradientPenalty: target={target!r}; give a slope that is not negative, such as 1.0")
        self.target = float(target)

    def forward(
        self,
        discriminator: Any,
        real: Tensor,
        fake: Tensor,
        condition: Condition | None = None,
        fake_condition: Condition | None = None,
    ) -> Tensor:
        if fake_condition is not None and fake_condition is not condition:
            raise InputError(
                "the gradient penalty judges points between a real and a fake sample, under one condition; the fakes "
                "have a condition of their own: make them under the real samples' condition, or use 'r1' instead"
            )
        if real.shape != fake.shape:
            raise InputError(
                f"the gradient penalty joins each real to a fake sample; given: real {tuple(real.shape)}, fake "
                f"{tuple(fake.shape)}: pass as many of the same shape, or use 'r1' instead"
            )
        with torch.no_grad():
            eps = torch.rand((len(real),) + (1,) * (real.ndim - 1), dtype=real.dtype, device=real.device)
            between = eps * real + (1 - eps) * fake
        return self.weight * slope_penalty(discriminator, between, condition, self.target)
