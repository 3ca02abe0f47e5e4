"""The game: what a discriminator and a generator each minimize."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor

from advloss._logits import Logits, as_scales
from advloss.errors import InputError, OptionError


class Loss(ABC):
    """A loss writes the two terms of its equation for one scale; this class does the rest.

    Means are taken over all logits of a scale, then over scales (`scales="mean"`), or summed over
    them (`scales="sum"`).

    Attributes:
        paired: whether the generator's term needs real logits.
    """

    paired: ClassVar[bool] = False

    def __init__(self, *, scales: Literal["mean", "sum"] = "mean") -> None:
        if scales not in ("mean", "sum"):
            raise OptionError(f"scales={scales!r}: use 'mean' or 'sum'")
        self.scales = scales

    @abstractmethod
    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        """What the discriminator minimizes, on the logits of one scale: a scalar."""

    @abstractmethod
    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """What the generator minimizes, on the logits of one scale: a scalar. `real` is None unless `paired`."""

    def accuracy(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """Shares of real and of fake logits of one scale that are told apart rightly. Here: by their sign."""
        return (real > 0).to(real.dtype).mean(), (fake < 0).to(fake.dtype).mean()

    def discriminator(self, real_logits: Logits, fake_logits: Logits) -> Tensor:
        """The discriminator's loss, a scalar.

        Raises:
            InputError: real and fake logits of different structure, or for a paired loss of different shapes.
        """
        pairs = self._scales(real_logits, fake_logits)
        return self._over_scales([self.discriminator_term(real, fake) for real, fake in pairs])

    def generator(self, fake_logits: Logits, real_logits: Logits | None = None) -> Tensor:
        """The generator's loss, a scalar. Gradients are meant to reach `fake_logits` only.

        Raises:
            InputError: a paired loss without real logits, or of other shapes than the fake ones.
        """
        if not self.paired:
            return self._over_scales([self.generator_term(fake, None) for fake in as_scales(fake_logits)])
        if real_logits is None:
            raise InputError(
                f"{type(self).__name__} compares fake with real logits: pass real logits (samples) as well"
            )
        pairs = self._scales(real_logits, fake_logits)
        return self._over_scales([self.generator_term(fake, real) for real, fake in pairs])

    def _scales(self, real_logits: Logits, fake_logits: Logits) -> list[tuple[Tensor, Tensor]]:
        real, fake = as_scales(real_logits), as_scales(fake_logits)
        if len(real) != len(fake):
            raise InputError(f"{len(real)} scales of real logits but {len(fake)} of fake ones")
        for r, f in zip(real, fake):
            if r.shape[1:] != f.shape[1:] or (self.paired and r.shape != f.shape):
                raise InputError(
                    f"real logits {tuple(r.shape)} and fake logits {tuple(f.shape)} do not match"
                    + ("; a paired loss needs as many real as fake samples" if self.paired else "")
                )
        return list(zip(real, fake))

    def _over_scales(self, terms: list[Tensor]) -> Tensor:
        total = sum(terms[1:], start=terms[0])
        return total / len(terms) if self.scales == "mean" else total
