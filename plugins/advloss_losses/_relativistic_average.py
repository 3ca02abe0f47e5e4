"""Relativistic average loss (Jolicoeur-Martineau 2018)."""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor
from torch.nn.functional import softplus

from advloss import Loss


@final
class RelativisticAverage(Loss):
    """Each logit is judged against the mean logit of the other side: ESRGAN's loss.

    ``L_D = (E sp(-(D(x) - E D(G(z)))) + E sp(D(G(z)) - E D(x))) / 2`` and
    ``L_G = (E sp(-(D(G(z)) - E D(x))) + E sp(D(x) - E D(G(z)))) / 2`` with sp = softplus (arXiv:1807.00734, RaSGAN;
    halves averaged as in ESRGAN's training code, arXiv:1809.00219). The means run over a scale's whole batch, so
    that samples are coupled. The generator's gradient reaches the fake logits and not the real ones.
    """

    paired: ClassVar[bool] = True

    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        return (softplus(fake.mean() - real).mean() + softplus(fake - real.mean()).mean()) / 2

    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        assert real is not None
        real = real.detach()
        return (softplus(real.mean() - fake).mean() + softplus(real - fake.mean()).mean()) / 2

    def accuracy(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Shares on the right side of the midpoint of both means: only differences of logits count."""
        threshold = (real.mean() + fake.mean()) / 2
        return (real > threshold).to(real.dtype).mean(), (fake < threshold).to(fake.dtype).mean()
