"""What the loops of several benchmarks share: a generator, a batch, the script's own half of the game."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from advloss import Adversary
from benchmarks._harness import gradients

BETAS = (0.0, 0.99)
LATENT = 64

MakeNetwork = Callable[[], nn.Module]


class Generator(nn.Module):
    """DCGAN's (arXiv:1511.06434): transposed convolutions from 4 x 4 to `side`, batch norm, ReLU."""

    def __init__(self, side: int, width: int = 64, most: int = 512) -> None:
        super().__init__()
        widths = [min(width * side // 2 // at, most) for at in _sides(side)]
        layers: list[nn.Module] = [nn.ConvTranspose2d(LATENT, widths[0], 4, bias=False)]
        for before, after in zip(widths, [*widths[1:], 3]):
            layers += [nn.BatchNorm2d(before), nn.ReLU()]
            layers.append(nn.ConvTranspose2d(before, after, 4, 2, 1, bias=False))
        self.layers = nn.Sequential(*layers, nn.Tanh())

    def forward(self, latent: Tensor) -> Tensor:
        """Images `(N, 3, side, side)` of noise `(N, 64)`."""
        return self.layers(latent[:, :, None, None])


def _sides(side: int) -> Iterator[int]:
    at = 4
    while at < side:
        yield at
        at *= 2


def adam(module: nn.Module, *, fused: bool | None = True) -> torch.optim.Adam:
    """Adam with the settings that all loops share; `fused=None` is what torch takes by itself."""
    return torch.optim.Adam(module.parameters(), lr=2e-4, betas=BETAS, fused=fused)


class Game(ABC):
    """A generator with its optimizer and one batch: what a script has before it has an adversary.

    Args:
        side, batch: of the images.
        generator: makes it; default `Generator`.
        discriminator_first: whose step comes first.
    """

    discriminator: nn.Module

    def __init__(
        self,
        side: int,
        batch: int,
        device: str,
        *,
        generator: MakeNetwork | None = None,
        discriminator_first: bool = False,
        fused: bool | None = True,
    ) -> None:
        torch.manual_seed(0)
        self.generator = (generator() if generator else Generator(side)).to(device)
        self.optimizer = adam(self.generator, fused=fused)
        self.real = (torch.rand(batch, 3, side, side) * 2 - 1).to(device)
        self.latent = torch.randn(batch, LATENT).to(device)
        self.discriminator_first = discriminator_first
        self.losses: dict[str, Tensor] = {}

    def step(self) -> None:
        """Both players, on the same fakes."""
        fake = self.generator(self.latent)
        if self.discriminator_first:
            self.update_discriminator(fake)
        self.update_generator(fake)
        if not self.discriminator_first:
            self.update_discriminator(fake)

    def update_generator(self, fake: Tensor) -> None:
        """Its step."""
        loss = self.generator_loss(fake)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.losses["generator"] = loss.detach()

    @abstractmethod
    def generator_loss(self, fake: Tensor) -> Tensor:
        """Of the game."""

    @abstractmethod
    def update_discriminator(self, fake: Tensor) -> None:
        """Its step."""

    @property
    @abstractmethod
    def discriminator_optimizer(self) -> torch.optim.Optimizer:
        """An Adam."""

    def numbers(self) -> Mapping[str, Tensor]:
        """Losses and both players' gradients."""
        return {
            **self.losses,
            "generator's gradient": gradients(self.optimizer, self.generator.parameters()),
            "discriminator's gradient": gradients(self.discriminator_optimizer, self.discriminator.parameters()),
        }


class Ours(Game):
    """The three lines."""

    def __init__(self, adversary: Callable[[], Adversary], *size: Any, **options: Any) -> None:
        torch.manual_seed(1)
        self.adversary = adversary()
        super().__init__(*size, **options)
        self.discriminator = self.adversary.to(self.real.device).discriminator

    def generator_loss(self, fake: Tensor) -> Tensor:
        return self.adversary.generator_loss(fake, self.real)

    def update_discriminator(self, fake: Tensor) -> None:
        report = self.adversary.discriminator_step(self.real, fake)
        if report.loss is not None:
            self.losses["discriminator"] = report.loss

    @property
    def discriminator_optimizer(self) -> torch.optim.Optimizer:
        return self.adversary.optimizer


class DiscriminatorAlone(Ours):
    """The discriminator's step on samples that nobody makes."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, generator=partial(nn.Linear, 1, 1), **options)
        self.fake = torch.rand_like(self.real) * 2 - 1

    def step(self) -> None:
        self.update_discriminator(self.fake)

    def numbers(self) -> Mapping[str, Tensor]:
        discriminator = gradients(self.adversary.optimizer, self.discriminator.parameters())
        return {**self.losses, "discriminator's gradient": discriminator}


class ByHand(Game):
    """The best loop that can be written by hand; a textbook takes things away from it.

    Attributes:
        freezes: whether the discriminator's parameters require no gradient in the generator's step.
        generates_again: whether the discriminator gets fakes of its own, made anew from the same noise.
    """

    freezes = True
    generates_again = False

    def __init__(self, discriminator: MakeNetwork, *size: Any, fused: bool | None = True, **options: Any) -> None:
        torch.manual_seed(1)
        self.discriminator = discriminator()
        super().__init__(*size, fused=fused, **options)
        self.discriminator.to(self.real.device)
        self.other = adam(self.discriminator, fused=fused)

    @abstractmethod
    def discriminator_loss(self, fake: Tensor) -> Tensor:
        """Of the game, with its regularizers."""

    def update_generator(self, fake: Tensor) -> None:
        if self.generates_again and self.discriminator_first:
            fake = self.generator(self.latent)
        self.discriminator.requires_grad_(not self.freezes)
        super().update_generator(fake)
        self.discriminator.requires_grad_(True)
        self.other.zero_grad()

    def update_discriminator(self, fake: Tensor) -> None:
        loss = self.discriminator_loss(fake.detach())
        loss.backward()
        self.other.step()
        self.other.zero_grad()
        self.losses["discriminator"] = loss.detach()

    @property
    def discriminator_optimizer(self) -> torch.optim.Optimizer:
        return self.other
