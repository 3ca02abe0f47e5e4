"""R2 (Mescheder et al. 2018): the discriminator's slope on fake samples."""

from __future__ import annotations

from typing import Any, Literal, final

from torch import Tensor

from advloss import Condition
from advloss_regularizers._zero_centered import ZeroCenteredPenalty


@final
class R2(ZeroCenteredPenalty):
    """``weight / 2 E_fake ||grad_x D(x)||^2`` (arXiv:1801.04406): `R1` on fake samples; R3GAN uses both on every step.

    The conventions, the finite-difference form and the options are those of `R1`. The fakes are judged under their
    own condition where there is one.

    Args:
        weight: gamma; 10 in the paper. R3GAN has 0.05 (CIFAR-10) to 150 (256 x 256).
        every: lazy regularization, applied by the adversary.
        method: ``"exact"`` needs double backward; ``"finite-difference"`` does not.
        sigma: the finite difference's step, in units of the inputs; 0.01 for images, 0.1 for video in Seaweed-APT.
        inputs: ``"samples"``, or ``"features"`` for the gradient by the inputs of a discriminator's heads.

    Raises:
        OptionError: an option outside these.
        CombinationError: ``inputs="features"`` with a discriminator that has no features and heads.
    """

    def __init__(
        self,
        *,
        weight: float = 10.0,
        every: int = 1,
        method: Literal["exact", "finite-difference"] = "exact",
        sigma: float = 0.01,
        inputs: Literal["samples", "features"] = "samples",
    ) -> None:
        super().__init__("fake", weight=weight, every=every, method=method, sigma=sigma, inputs=inputs)

    def forward(
        self,
        discriminator: Any,
        real: Tensor,
        fake: Tensor,
        condition: Condition | None = None,
        fake_condition: Condition | None = None,
    ) -> Tensor:
        return self.penalty(discriminator, fake, condition if fake_condition is None else fake_condition)
