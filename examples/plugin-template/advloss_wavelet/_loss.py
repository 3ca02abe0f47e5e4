"""The logistic loss with one-sided label smoothing (Salimans et al. 2016)."""

from __future__ import annotations

from typing import Literal, final

from torch import Tensor
from torch.nn.functional import softplus

from advloss import Loss, OptionError


@final
class WaveletSmooth(Loss):
    """The discriminator is told that real samples are real with probability ``1 - s`` only (arXiv:1606.03498, 3.4).

    ``L_D = (1 - s) E sp(-D(x)) + s E sp(D(x)) + E sp(D(G(z)))``, ``L_G = E sp(-D(G(z)))`` with sp = softplus. Where
    real and fake samples are alike, the best logit is ``log((1 - s) / (1 + s))``.

    Args:
        smoothing: s; 0.1 in the paper.
        scales: how the terms of several scales are joined, ``"mean"`` or ``"sum"``.

    Raises:
        OptionError: a `smoothing` outside [0, 0.5).
    """

    def __init__(self, *, smoothing: float = 0.1, scales: Literal["mean", "sum"] = "mean") -> None:
        super().__init__(scales=scales)
        if not 0 <= smoothing < 0.5:
            raise OptionError(f"smoothing={smoothing!r}: give a number from 0 up to, not including, 0.5")
        self.smoothing = smoothing

    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        s = self.smoothing
        return (1 - s) * softplus(-real).mean() + s * softplus(real).mean() + softplus(fake).mean()

    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return softplus(-fake).mean()
