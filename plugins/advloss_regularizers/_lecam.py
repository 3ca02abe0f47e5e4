"""LeCam regularization (Tseng et al. 2021)."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor
from torch.nn.functional import relu

from advloss import Condition, OptionError, Regularizer, as_scales, logit_mean
from advloss_regularizers._shared import at_least_float32, cut


@final
class LeCam(Regularizer):
    """Logits are held near the other side's moving average: for limited data and long autoencoder training.

    ``weight (E relu(D(x) - ema_f)^2 + E relu(ema_r - D(G(z)))^2)`` (arXiv:2104.03310), where ema_r and ema_f average
    the mean logits of real and fake samples. Both start at zero and enter the term as they were before this batch;
    each call then moves them, ``ema <- decay ema + (1 - decay) mean``, without a correction for the start: while they
    are near zero the term draws logits to zero.

    Args:
        weight: lambda; 0.3 in the authors' CIFAR scripts, 0.001 to 0.05 in autoencoders.
        decay: of the moving averages; 0.99 in the authors' code, 0.999 in autoencoders.
        every: applied by the adversary; the averages move on the steps when the term is due.

    Attributes:
        ema_real, ema_fake: the moving averages, scalar buffers.

    Raises:
        OptionError: an option outside these.
    """

    ema_real: Tensor
    ema_fake: Tensor

    def __init__(self, *, weight: float = 0.3, decay: float = 0.99, every: int = 1) -> None:
        super().__init__(weight=weight, every=every)
        if not 0 <= decay < 1:
            raise OptionError(f"LeCam: decay={decay!r}; give a number from 0 up to, not including, 1, such as 0.99")
        self.decay = float(decay)
        self.register_buffer("ema_real", torch.zeros(()))
        self.register_buffer("ema_fake", torch.zeros(()))

    def forward(
        self,
        discriminator: Any,
        real: Tensor,
        fake: Tensor,
        condition: Condition | None = None,
        fake_condition: Condition | None = None,
    ) -> Tensor:
        real_logits = discriminator(cut(real), condition)
        fake_logits = discriminator(cut(fake), condition if fake_condition is None else fake_condition)
        reals = [at_least_float32(scale) for scale in as_scales(real_logits)]
        fakes = [at_least_float32(scale) for scale in as_scales(fake_logits)]
        ema_real, ema_fake = self.ema_real.clone(), self.ema_fake.clone()
        term = logit_mean([relu(r - ema_fake).square() for r in reals])
        term = term + logit_mean([relu(ema_real - f).square() for f in fakes])
        self._move(self.ema_real, reals)
        self._move(self.ema_fake, fakes)
        return self.weight * term

    @torch.no_grad()
    def _move(self, average: Tensor, scales: list[Tensor]) -> None:
        average.mul_(self.decay).add_(logit_mean(scales).to(average), alpha=1 - self.decay)
