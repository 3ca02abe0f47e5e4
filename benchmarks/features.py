"""A discriminator on frozen features: what of it is computed, and how often."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import Tensor
from torch.nn.functional import relu

from advloss import Adversary, create_discriminator
from benchmarks._harness import Row, Settings, compare, gradients
from benchmarks._players import ByHand, Ours


class Textbook(ByHand):
    """Features of both batches in the discriminator's step, and of the fakes again in the generator's."""

    def generator_loss(self, fake: Tensor) -> Tensor:
        return -_mean([logits.mean() for logits in self.discriminator(fake)])

    def discriminator_loss(self, fake: Tensor) -> Tensor:
        pairs = zip(self.discriminator(self.real), self.discriminator(fake))
        return _mean([relu(1 - real).mean() + relu(1 + made).mean() for real, made in pairs])


class UnderGrad(Textbook):
    """The same by somebody who gave the optimizer the heads alone and took that for freezing: features have a graph."""

    def discriminator_loss(self, fake: Tensor) -> Tensor:
        self.discriminator.features.requires_grad_(True)
        return super().discriminator_loss(fake)


def _mean(terms: list[Tensor]) -> Tensor:
    return sum(terms[1:], start=terms[0]) / len(terms)
