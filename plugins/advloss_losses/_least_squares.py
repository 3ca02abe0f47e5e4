"""Least-squares loss (Mao et al. 2016)."""

from __future__ import annotations

from typing import Literal, final

from torch import Tensor

from advloss import Loss, OptionError


@final
class LeastSquares(Loss):
    """Logits are regressed to 1 on real and to 0 on fake samples.

    ``L_D = E (D(x) - 1)^2 + E D(G(z))^2``, ``L_G = E (D(G(z)) - 1)^2``; `half` halves each term, as the paper
    writes them (arXiv:1611.04076, eq. 9: a = 0, b = c = 1). CycleGAN and pix2pixHD leave the halves out.

    Args:
        half: whether each term has the paper's factor 1/2.
        scales: how the terms of several scales are joined, ``"mean"`` or ``"sum"``.

    Raises:
        OptionError: a `half` that is neither True nor False.
    """

    def __init__(self, *, half: bool = False, scales: Literal["mean", "sum"] = "mean") -> None:
        super().__init__(scales=scales)
        if not isinstance(half, bool):
            raise OptionError(f"LeastSquares: half={half!r}; give True (1/2 before each term) or False")
        self.half = half

    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        return self._factor * ((real - 1).square().mean() + fake.square().mean())

    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return self._factor * (fake - 1).square().mean()

    def accuracy(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Shares on the right side of 1/2, which is as far from either target."""
        return (real > 0.5).to(real.dtype).mean(), (fake < 0.5).to(fake.dtype).mean()

    @property
    def _factor(self) -> float:
        return 0.5 if self.half else 1.0
