"""Relativistic pairing loss (Jolicoeur-Martineau 2018; Huang et al. 2025)."""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor
from torch.nn.functional import softplus

from advloss import Loss


@final
class RelativisticPairing(Loss):
    """Each fake is judged against the real sample of its place in the batch: R3GAN's loss.

    ``L_D = E sp(-(D(x) - D(G(z))))``, ``L_G = E sp(-(D(G(z)) - D(x)))`` with sp = softplus
    (arXiv:1807.00734, RSGAN; arXiv:2501.05441, eq. 2). Only differences count: a logit's sign says nothing.
    The generator's gradient reaches the fake logits and not the real ones.
    """

    paired: ClassVar[bool] = True

    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake - real).mean()

    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        assert real is not None
        return softplus(real.detach() - fake).mean()

    def accuracy(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """The share of pairs whose real logit is the larger one, for both sides."""
        right = (real > fake).to(real.dtype).mean()
        return right, right
