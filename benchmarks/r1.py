"""R1 on a residual discriminator: on every step, and lazily."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import softplus

from advloss import Adversary, create_discriminator
from benchmarks._harness import Row, Settings, compare
from benchmarks._players import ByHand, Ours

WEIGHT = 10.0


class SeparateForward(ByHand):
    """The textbook's R1 runs the discriminator on the real batch once more; otherwise the best loop by hand."""

    def generator_loss(self, fake: Tensor) -> Tensor:
        return softplus(-self.discriminator(fake)).mean()

    def discriminator_loss(self, fake: Tensor) -> Tensor:
        game = softplus(-self.discriminator(self.real)).mean() + softplus(self.discriminator(fake)).mean()
        real = self.real.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(self.discriminator(real).sum(), real, create_graph=True)
        return game + WEIGHT / 2 * gradient.square().sum((1, 2, 3)).mean()


class Plain(SeparateForward):
    """The same without freezing, with fakes for each player and torch's default Adam."""

    freezes = False
    generates_again = True


class Many(Ours):
    """Sixteen steps of both players."""

    def step(self) -> None:
        for _ in range(16):
            super().step()


def rows(settings: Settings) -> Iterator[Row]:
    """StyleGAN2's residual network."""
    side, batch = settings.size(64, 16), settings.size(4, 2)
    size, options = (side, batch, settings.device), {"resolution": side, "width": settings.size(16, 8)}
    network = partial(create_discriminator, "stylegan2", **options)
    adversary = partial(Adversary, ("stylegan2", options), regularizers={"r1": {"weight": WEIGHT}})
    work = f"non-saturating, R1 on every step, residual, {side} x {side}, batch {batch}"
    ours = partial(Ours, adversary, *size, discriminator_first=True)
    best = partial(SeparateForward, network, *size, discriminator_first=True)
    yield compare(work, ours, "a forward of its own for R1, otherwise the best loop", best, settings)
    plain = partial(Plain, network, *size, discriminator_first=True, fused=None)
    yield compare(work, ours, "a forward of its own for R1, plain loop", plain, settings, target=0.80)

    size, options = (side, 2, settings.device), {"resolution": side, "width": 8}
    without = partial(Adversary, ("stylegan2", options))
    lazily = partial(without, regularizers={"r1": {"weight": WEIGHT, "every": 16}})
    work = f"non-saturating, R1 on each 16th step, residual, {side} x {side}, batch 2, 16 steps"
    lazy, plain = partial(Many, lazily, *size), partial(Many, without, *size)
    yield compare(work, lazy, "without R1", plain, settings, target=1.08, agreement=None)
