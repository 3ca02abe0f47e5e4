"""Hinge loss (Lim and Ye 2017; Miyato et al. 2018)."""

from __future__ import annotations

from typing import final

from torch import Tensor
from torch.nn.functional import relu

from advloss import Loss


@final
class Hinge(Loss):
    """``L_D = E relu(1 - D(x)) + E relu(1 + D(G(z)))``, ``L_G = -E D(G(z))`` (arXiv:1705.02894, 1802.05957 eq. 16-17)."""

    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        return relu(1 - real).mean() + relu(1 + fake).mean()

    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return -fake.mean()
