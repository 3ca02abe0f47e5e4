"""Hinge loss (Lim and Ye 2017; Miyato et al. 2018)."""

from __future__ import annotations

from typing import Literal, final

from torch import Tensor
from torch.nn.functional import relu

from advloss import Loss, OptionError


@final
class Hinge(Loss):
    """The discriminator stops pushing once a logit is beyond its margin of 1.

    ``L_D = scale (E relu(1 - D(x)) + E relu(1 + D(G(z))))``, ``L_G = -E D(G(z))``
    (arXiv:1705.02894; arXiv:1802.05957, eq. 16 and 17).

    Args:
        scale: factor of the discriminator's loss. The papers have 1; taming-transformers and the autoencoders
            that follow it have 0.5.
        scales: how the terms of several scales are joined, ``"mean"`` or ``"sum"``.

    Raises:
        OptionError: a `scale` that is not positive.
    """

    def __init__(self, *, scale: float = 1.0, scales: Literal["mean", "sum"] = "mean") -> None:
        super().__init__(scales=scales)
        if not scale > 0:
            raise OptionError(f"Hinge: scale={scale!r}; give a positive factor (1.0 as the papers, 0.5 as taming)")
        self.scale = float(scale)

    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        return self.scale * (relu(1 - real).mean() + relu(1 + fake).mean())

    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return -fake.mean()
