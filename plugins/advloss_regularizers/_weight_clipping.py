"""Weight clipping (Arjovsky et al. 2017)."""

from __future__ import annotations

from typing import Any, final

import torch
from torch import Tensor, nn

from advloss import Condition, Logits, OptionError, Regularizer


@final
class WeightClipping(Regularizer):
    """After each step every trainable parameter of the discriminator is clamped to ``[-clip, clip]``.

    The first way to bound a Wasserstein critic's slope (arXiv:1701.07875, algorithm 1). The term itself is zero.

    Args:
        clip: the bound, c; 0.01 in the paper.

    Raises:
        OptionError: a `clip` that is not positive.
    """

    def __init__(self, *, clip: float = 0.01) -> None:
        super().__init__(weight=0.0)
        if not clip > 0:
            raise OptionError(f"WeightClipping: clip={clip!r}; give a positive bound, such as 0.01")
        self.clip = float(clip)

    def forward(
        self,
        discriminator: Any,
        real: Tensor,
        fake: Tensor,
        condition: Condition | None = None,
        fake_condition: Condition | None = None,
    ) -> Tensor:
        return real.new_zeros(())

    @torch.no_grad()
    def after_step(self, discriminator: nn.Module, real_logits: Logits, fake_logits: Logits) -> None:
        """Clamp the parameters in place; frozen ones stay as they are."""
        for parameter in discriminator.parameters():
            if parameter.requires_grad:
                parameter.clamp_(-self.clip, self.clip)
