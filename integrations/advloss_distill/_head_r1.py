"""R1 on the inputs of heads, where features depend on the condition."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from advloss import (
    CombinationError,
    Condition,
    FeatureDiscriminator,
    OptionError,
    Regularizer,
    input_gradient,
)
from advloss_distill._noised_heads import NoisedHeads


@final
class HeadR1(Regularizer):
    """``weight / 2 E sum_k ||grad_{h_k} D||^2`` over the inputs h_k of a `NoisedHeads`' heads, on real samples.

    ADD's R1 (arXiv:2311.17042, section 3.2) for heads on a diffusion network: no double backward through the network.

    Args:
        weight: gamma; ADD has 1e-5.
        every: lazy regularization, applied by the adversary.
    """

    def __init__(self, *, weight: float = 1e-5, every: int = 1) -> None:
        super().__init__(weight=weight, every=every)

    def forward(
        self,
        discriminator: Any,
        real: Tensor,
        fake: Tensor,
        condition: Condition | None = None,
        fake_condition: Condition | None = None,
    ) -> Tensor:
        with torch.no_grad():
            tokens = discriminator.tokens(real, condition)
        tokens = [t.to(torch.promote_types(t.dtype, torch.float32)).requires_grad_() for t in tokens]
        with torch.autocast(real.device.type, enabled=False):
            gradients = input_gradient(discriminator.judge(tokens, condition), tokens)
        squares = [gradient.square().sum() for gradient in gradients]
        return self.weight / 2 * sum(squares[1:], start=squares[0]) / len(real)


METHODS = ("head-inputs", "finite-difference", "exact")


def r1(discriminator: nn.Module, method: str, weight: float, every: int = 1) -> list[Any]:
    """R1 for this discriminator, as an `Adversary` takes regularizers; none at weight 0.

    Raises:
        OptionError: no such method.
        CombinationError: ``"head-inputs"`` for a discriminator that has no frozen features and heads.
    """
    if method not in METHODS:
        raise OptionError(f"R1 by {method!r}: there are {', '.join(METHODS)}")
    if weight == 0:
        return []
    if method != "head-inputs":
        return [("regularizers/r1", {"weight": weight, "every": every, "method": method})]
    if isinstance(discriminator, NoisedHeads):
        return [HeadR1(weight=weight, every=every)]
    if isinstance(discriminator, FeatureDiscriminator):
        return [("regularizers/r1", {"weight": weight, "every": every, "inputs": "features"})]
    raise CombinationError(
        f"a {type(discriminator).__name__} has no heads on features, whose inputs R1 could look at; use finite-difference or exact"
    )
