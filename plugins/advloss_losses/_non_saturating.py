"""Non-saturating logistic loss (Goodfellow et al. 2014)."""

from __future__ import annotations

from typing import final

from torch import Tensor
from torch.nn.functional import softplus

from advloss import Loss


@final
class NonSaturating(Loss):
    """The logistic game whose generator raises log D instead of lowering log(1 - D): StyleGAN's loss.

    ``L_D = E sp(-D(x)) + E sp(D(G(z)))``, ``L_G = E sp(-D(G(z)))`` with sp = softplus on raw logits
    (arXiv:1406.2661, section 3).
    """

    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real).mean() + softplus(fake).mean()

    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return softplus(-fake).mean()
