"""The whole game with a PatchGAN and the hinge loss, against the loops that a person writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import relu

from advloss import Adversary, create_discriminator
from benchmarks._harness import Row, Settings, compare
from benchmarks._players import Game, Ours, adam


class Textbook(Game):
    """What both loops below share: the discriminator and its step."""

    def __init__(self, side: int, batch: int, device: str, *, fused: bool | None = True) -> None:
        torch.manual_seed(1)
        discriminator = create_discriminator("patch")
        super().__init__(side, batch, device, fused=fused)
        self.discriminator = discriminator.to(device)
        self.other = adam(self.discriminator, fused=fused)

    def update_discriminator(self, fake: Tensor) -> None:
        """Its step on detached samples."""
        real_logits, fake_logits = self.discriminator(self.real), self.discriminator(fake.detach())
        loss = relu(1 - real_logits).mean() + relu(1 + fake_logits).mean()
        loss.backward()
        self.other.step()
        self.other.zero_grad()
        self.losses["discriminator"] = loss.detach()

    def numbers(self) -> Mapping[str, Tensor]:
        return self.compared(self.discriminator, self.other)


class Best(Textbook):
    """The best loop by hand: one fake for both players, the discriminator frozen in the generator's step."""

    def step(self) -> None:
        self.discriminator.requires_grad_(False)
        fake = self.generator(self.latent)
        self.update(-self.discriminator(fake).mean())
        self.discriminator.requires_grad_(True)
        self.update_discriminator(fake)


class Plain(Textbook):
    """As in most tutorials: a fake for each player, weight gradients of the discriminator computed and thrown away."""

    def __init__(self, side: int, batch: int, device: str) -> None:
        super().__init__(side, batch, device, fused=None)

    def step(self) -> None:
        fake = self.generator(self.latent)
        self.update_discriminator(fake)
        self.update(-self.discriminator(self.generator(self.latent)).mean())
        self.discriminator.zero_grad()


def rows(settings: Settings) -> Iterator[Row]:
    """At two resolutions."""
    for side, batch in ((64, settings.size(8, 1)), (settings.size(256, 32), settings.size(2, 1))):

        size = (side, batch, settings.device)
        work = f"hinge, PatchGAN, both players, {side} x {side}, batch {batch}"
        best, plain = partial(Best, *size), partial(Plain, *size)
        yield compare(work, partial(_ours, *size), "best loop by hand", best, settings, target=1.01)
        ours = partial(_ours, *size, discriminator_first=True)
        yield compare(work, ours, "plain loop", plain, settings, target=0.75)


def _ours(*size: Any, **options: Any) -> Ours:
    torch.manual_seed(1)
    return Ours(Adversary("patch", "hinge"), *size, **options)
