"""Wasserstein loss (Arjovsky et al. 2017)."""

from __future__ import annotations

from typing import final

from torch import Tensor

from advloss import Loss


@final
class Wasserstein(Loss):
    """The critic's estimate of the earth mover's distance, with its sign turned.

    ``L_D = E D(G(z)) - E D(x)``, ``L_G = -E D(G(z))`` (arXiv:1701.07875, eq. 2 and 3). It means something only
    for a critic of bounded slope: add ``"gradient-penalty"`` (that is ``"wgan-gp"``) or ``"weight-clipping"``.
    """

    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        return fake.mean() - real.mean()

    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return -fake.mean()

    def accuracy(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Shares on the right side of the midpoint of both means: a critic is free up to a constant."""
        threshold = (real.mean() + fake.mean()) / 2
        return (real > threshold).to(real.dtype).mean(), (fake < threshold).to(fake.dtype).mean()
