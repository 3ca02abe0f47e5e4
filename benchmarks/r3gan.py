"""R3GAN's game: relativistic pairing with R1 and R2 on every step."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, leaky_relu, softplus

from advloss import Adversary, create_discriminator
from benchmarks._harness import Row, Settings, compare
from benchmarks._players import LATENT, ByHand, Ours

WEIGHT = 0.05


class Block(nn.Module):
    """A residual block of R3GAN's generator, which mirrors its discriminator's (arXiv:2501.05441, figure 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = 2 * channels
        self.expand = nn.Conv2d(channels, inner, 1)
        self.mix = nn.Conv2d(inner, inner, 3, padding=1, groups=inner // 16)
        self.reduce = nn.Conv2d(inner, channels, 1, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + self.reduce(leaky_relu(self.mix(leaky_relu(self.expand(inputs), 0.2)), 0.2))


class Mirrored(nn.Module):
    """A generator of the discriminator's size: stages of two blocks from 4 x 4, bilinear in between."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        stages = (side // 4).bit_length()
        self.basis = nn.Linear(LATENT, width * 16)
        self.stages = nn.ModuleList(nn.Sequential(Block(width), Block(width)) for _ in range(stages))
        self.last = nn.Conv2d(width, 3, 1)

    def forward(self, latent: Tensor) -> Tensor:
        """Images `(N, 3, side, side)`."""
        hidden = self.basis(latent).unflatten(1, (-1, 4, 4))
        for number, stage in enumerate(self.stages):
            hidden = stage(interpolate(hidden, scale_factor=2, mode="bilinear") if number else hidden)
        return self.last(hidden)


class R3GAN(ByHand):
    """The order of work of R3GAN's Trainer.py: fakes anew for each player, the other one frozen, samples as leaves, one
    backward for all."""

    def step(self) -> None:
        with torch.no_grad():  # the generator is frozen in the discriminator's phase
            fake = self.generator(self.latent)
        self.update_discriminator(fake)
        self.update_generator(self.generator(self.latent))

    def generator_loss(self, fake: Tensor) -> Tensor:
        return softplus(self.discriminator(self.real) - self.discriminator(fake)).mean()

    def discriminator_loss(self, fake: Tensor) -> Tensor:
        real, fake = self.real.detach().requires_grad_(), fake.detach().requires_grad_()
        real_logits, fake_logits = self.discriminator(real), self.discriminator(fake)
        r1, r2 = _penalty(real, real_logits), _penalty(fake, fake_logits)
        return (softplus(fake_logits - real_logits) + WEIGHT / 2 * (r1 + r2)).mean()


def _penalty(samples: Tensor, logits: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(logits.sum(), samples, create_graph=True)
    return gradient.square().sum((1, 2, 3))


def rows(settings: Settings) -> Iterator[Row]:
    """At the size of its network for 32 x 32 images, narrower."""
    side, batch, width = settings.size(32, 8), settings.size(8, 2), settings.size(64, 16)
    options = {"resolution": side, "width": width}
    size = (side, batch, settings.device)
    terms = {"r1": {"weight": WEIGHT}, "r2": {"weight": WEIGHT}}
    shared = {"generator": partial(Mirrored, width, side), "discriminator_first": True}
    ours = partial(Ours, partial(Adversary, ("r3gan", options), "relativistic", terms), *size, **shared)
    other = partial(R3GAN, partial(create_discriminator, "r3gan", **options), *size, **shared)
    work = f"relativistic, R1 and R2, {side} x {side}, batch {batch}"
    yield compare(work, ours, "R3GAN's order of work", other, settings, target=0.95)
