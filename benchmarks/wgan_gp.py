"""WGAN-GP with five steps of its critic."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from advloss import Adversary, create_discriminator
from benchmarks._harness import Row, Settings, compare
from benchmarks._players import LATENT, ByHand, Game, Ours

STEPS = 5


class Critic(Game):
    """Five critic steps, each on fresh noise, then one of the generator."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.noise = [torch.randn(len(self.latent), LATENT).to(self.latent.device) for _ in range(STEPS)]

    def step(self) -> None:
        for noise in self.noise:
            self.update_discriminator(self.make(noise))
        self.update_generator(self.generator(self.latent))

    def make(self, noise: Tensor) -> Tensor:
        """Fakes for the critic."""
        return self.generator(noise)


class OurCritic(Critic, Ours):
    """As `advloss_gan.train_gan` does it: the critic's fakes are made without a graph."""

    @torch.no_grad()
    def make(self, noise: Tensor) -> Tensor:
        return self.generator(noise)


class Textbook(Critic, ByHand):
    """Algorithm 1 of arXiv:1704.00028 as tutorials write it."""

    freezes = False

    def generator_loss(self, fake: Tensor) -> Tensor:
        return -self.discriminator(fake).mean()

    def discriminator_loss(self, fake: Tensor) -> Tensor:
        eps = torch.rand(len(fake), 1, 1, 1, device=fake.device)
        between = (eps * self.real + (1 - eps) * fake).requires_grad_()
        game = self.discriminator(fake).mean() - self.discriminator(self.real).mean()
        (gradient,) = torch.autograd.grad(self.discriminator(between).sum(), between, create_graph=True)
        return game + 10 * (gradient.flatten(1).norm(dim=1) - 1).square().mean()


def rows(settings: Settings) -> Iterator[Row]:
    """DCGAN's network without batch norm, as its recipe has it."""
    side, batch = settings.size(64, 16), settings.size(4, 2)
    options = {"resolution": side, "norm": "none", "width": settings.size(64, 8)}
    size = (side, batch, settings.device)
    ours = partial(OurCritic, partial(Adversary, ("dcgan", options), "wgan-gp"), *size)
    network = partial(create_discriminator, "dcgan", **options)
    work = f"WGAN-GP, {STEPS} critic steps and one of the generator, {side} x {side}, batch {batch}"
    plain = partial(Textbook, network, *size, fused=None)
    yield compare(work, ours, "textbook", plain, settings, target=0.95)
