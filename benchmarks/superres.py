"""ESRGAN's adversarial step: L1, perceptual, relativistic average with the VGG-style discriminator, EMA."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from advloss import Adversary, create_discriminator
from advloss_superres import Objective, Phase, PhasedTraining, RRDBNetwork
from benchmarks._harness import Row, Settings, compare, gradients
from benchmarks._players import adam

SCALE = 4


class Perceptual(nn.Module):
    """A stand-in for VGG features: convolutions with random weights, distances of features before the activation."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in pairwise((3, width, 2 * width)))
        self.requires_grad_(False)

    def forward(self, made: Tensor, originals: Tensor) -> Tensor:
        distance = made.new_zeros(())
        for layer in self.layers:
            made, originals = layer(made), layer(originals)
            distance = distance + functional.l1_loss(made, originals)
            made, originals = (functional.avg_pool2d(x.relu(), 2) for x in (made, originals))
        return distance


class Player:
    """A loop with networks of its own, alike in all."""

    optimizer: torch.optim.Optimizer

    def __init__(self, side: int, batch: int, width: int, device: str) -> None:
        torch.manual_seed(0)
        self.model = RRDBNetwork(SCALE, width=32, growth=16, depth=1).to(device)
        self.perceptual = Perceptual().to(device)
        high = (torch.rand(batch, 3, side, side) * 2 - 1).to(device)
        self.pair = functional.avg_pool2d(high, SCALE), high
        self.discriminator = create_discriminator("vgg", resolution=side, width=width).to(device)

    def numbers(self) -> Mapping[str, Tensor]:
        """The network's gradient; the discriminator's are not alike: BasicSR takes the other side's mean for a constant."""
        return {"network's gradient": gradients(self.optimizer, self.model.parameters())}


class Ours(Player):
    """`PhasedTraining`'s step."""

    def __init__(self, *size: Any) -> None:
        super().__init__(*size)
        adversary = Adversary(self.discriminator, "relativistic-average", weight=0.005, reuse_real=True, seed=0)
        self.optimizer = adam(self.model)
        phase = Phase(
            name="adversarial",
            objective=Objective(adversary, pixel_weight=0.01, perceptual=self.perceptual),
            batches=[self.pair],
            steps=10**9,
            optimizer=lambda parameters: self.optimizer,
        )
        accelerator = Accelerator(cpu=self.pair[0].device.type == "cpu")
        self.training = PhasedTraining(self.model, [phase], accelerator=accelerator)

    def step(self) -> None:
        self.training.step()


class BasicSR(Player):
    """The order of work of BasicSR's ESRGANModel (basicsr/models/esrgan_model.py).

    In the discriminator's turn fakes go through it once for the real side's mean, with a graph that nobody uses, and once more
    for their own; the average of the weights is kept tensor by tensor.
    """

    def __init__(self, *size: Any) -> None:
        super().__init__(*size)
        self.optimizer, self.other = adam(self.model), adam(self.discriminator)
        self.average = {name: p.detach().clone() for name, p in self.model.named_parameters()}

    def step(self) -> None:
        low, high = self.pair
        self.discriminator.requires_grad_(False)
        self.optimizer.zero_grad()
        made = self.model(low)
        loss = 0.01 * functional.l1_loss(made, high) + self.perceptual(made, high)
        real, fake = self.discriminator(high).detach(), self.discriminator(made)
        loss = loss + 0.005 * (_logistic(real - fake.mean(), False) + _logistic(fake - real.mean(), True)) / 2
        loss.backward()
        self.optimizer.step()

        self.discriminator.requires_grad_(True)
        self.other.zero_grad()
        fake = self.discriminator(made).detach()
        real = self.discriminator(high)
        (_logistic(real - fake.mean(), True) / 2).backward()
        fake = self.discriminator(made.detach())
        (_logistic(fake - real.mean().detach(), False) / 2).backward()
        self.other.step()
        for name, parameter in self.model.named_parameters():
            self.average[name].mul_(0.999).add_(parameter.detach(), alpha=0.001)


def _logistic(logits: Tensor, real: bool) -> Tensor:
    target = torch.ones_like(logits) if real else torch.zeros_like(logits)
    return functional.binary_cross_entropy_with_logits(logits, target)


def rows(settings: Settings) -> Iterator[Row]:
    """On crops of ESRGAN's size."""
    side, batch, width = settings.size(128, 32), 2, settings.size(64, 8)
    size = (side, batch, width, settings.device)
    work = f"ESRGAN's adversarial step, {side} x {side}, batch {batch}"
    ours, other = partial(Ours, *size), partial(BasicSR, *size)
    yield compare(work, ours, "BasicSR's order of work", other, settings, target=0.90)
