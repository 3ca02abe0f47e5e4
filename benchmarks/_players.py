"""What the loops of several benchmarks share: a generator, a batch, the script's own half of the game, a plain Adam."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from advloss import Adversary
from benchmarks._harness import gradients

BETAS = (0.0, 0.99)
LATENT = 64


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


class Game:
    """A generator with its optimizer and batches: what a script has before it has an adversary."""

    def __init__(self, side: int, batch: int, device: str, *, width: int = 64, fused: bool | None = True) -> None:
        torch.manual_seed(0)
        self.generator = Generator(side, width).to(device)
        self.optimizer = adam(self.generator, fused=fused)
        self.real = (torch.rand(batch, 3, side, side) * 2 - 1).to(device)
        self.latent = torch.randn(batch, LATENT).to(device)
        self.losses: dict[str, Tensor] = {}

    def update(self, loss: Tensor) -> None:
        """The generator's step."""
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.losses["generator"] = loss.detach()

    def compared(self, discriminator: nn.Module, optimizer: torch.optim.Optimizer) -> Mapping[str, Tensor]:
        """Losses and both players' gradients."""
        return {
            **self.losses,
            "generator's gradient": gradients(self.optimizer, self.generator.parameters()),
            "discriminator's gradient": gradients(optimizer, discriminator.parameters()),
        }


class Ours(Game):
    """The three lines, with either player first."""

    def __init__(self, adversary: Adversary, *size: Any, discriminator_first: bool = False, **options: Any) -> None:
        super().__init__(*size, **options)
        self.adversary = adversary.to(self.real.device)
        self.discriminator_first = discriminator_first

    def step(self) -> None:
        fake = self.generator(self.latent)
        if self.discriminator_first:
            self.update_discriminator(fake)
        self.update(self.adversary.generator_loss(fake, self.real))
        if not self.discriminator_first:
            self.update_discriminator(fake)

    def update_discriminator(self, fake: Tensor) -> None:
        """Its step."""
        report = self.adversary.discriminator_step(self.real, fake)
        if report.loss is not None:
            self.losses["discriminator"] = report.loss

    def numbers(self) -> Mapping[str, Tensor]:
        return self.compared(self.adversary.discriminator, self.adversary.optimizer)
