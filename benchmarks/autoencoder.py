"""An autoencoder's step: with adaptive weight and discriminator, and before the adversary's start.

The other loop is ordered as taming-transformers orders its work (taming/modules/losses/vqperceptual.py under Lightning's
two optimizers): the weight by two retained backward passes, the reconstruction and the perceptual term once more for the
discriminator.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from advloss import Adversary, create_discriminator
from advloss_autoencoder import Autoencoder, Objective, last_layer
from benchmarks._harness import Row, Settings, compare, gradients
from benchmarks._players import adam


class Perceptual(nn.Module):
    """A stand-in for LPIPS: convolutions of VGG's kind with random weights, distances of normalized features."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        widths = (3, width, 2 * width, 4 * width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.ReLU(), nn.Conv2d(b, b, 3, padding=1), nn.ReLU())
            for a, b in pairwise(widths)
        )
        self.requires_grad_(False)

    def forward(self, made: Tensor, images: Tensor) -> Tensor:
        distance = made.new_zeros(())
        for block in self.blocks:
            made, images = block(made), block(images)
            distance = distance + (functional.normalize(made) - functional.normalize(images)).square().mean()
            made, images = functional.avg_pool2d(made, 2), functional.avg_pool2d(images, 2)
        return distance


class Player:
    """A model with its optimizer and batch."""

    def __init__(self, side: int, batch: int, device: str) -> None:
        torch.manual_seed(0)
        widths = (32, 64, 64)
        self.model = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * len(widths),
            up_block_types=("UpDecoderBlock2D",) * len(widths),
            block_out_channels=widths,
            norm_num_groups=8,
            mid_block_add_attention=False,
        )
        self.autoencoder, self.perceptual = Autoencoder(self.model.to(device)), Perceptual().to(device)
        self.optimizer = adam(self.model)
        self.images = (torch.rand(batch, 3, side, side) * 2 - 1).to(device)
        self.loss: Tensor

    def update(self, loss: Tensor) -> None:
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.loss = loss.detach()

    def numbers(self) -> Mapping[str, Tensor]:
        """The autoencoder's; taming's discriminator sees what the autoencoder makes after its step."""
        trained = [p for p in self.model.parameters() if p in self.optimizer.state]
        return {"loss": self.loss, "autoencoder's gradient": gradients(self.optimizer, trained)}


class Plain(Player):
    """No adversary."""

    def step(self) -> None:
        torch.manual_seed(2)
        samples, kl = self.autoencoder(self.images)
        loss = functional.l1_loss(samples, self.images) + self.perceptual(samples, self.images) + 1e-6 * kl
        self.update(loss)


class Ours(Player):
    """The objective and the adversary; before the start step if it lies far ahead."""

    def __init__(self, side: int, batch: int, device: str, start_step: int = 0) -> None:
        super().__init__(side, batch, device)
        torch.manual_seed(1)
        adversary = Adversary("patch", "hinge", weight=0.5, start_step=start_step).to(device)
        self.objective = Objective(adversary, last_layer(self.model), perceptual=self.perceptual)

    def step(self) -> None:
        torch.manual_seed(2)
        reconstruction = self.autoencoder(self.images)
        self.update(self.objective(reconstruction, self.images).total)
        self.objective.discriminator_step(reconstruction, self.images)


class Taming(Player):
    """The order of work of taming-transformers."""

    def __init__(self, side: int, batch: int, device: str) -> None:
        super().__init__(side, batch, device)
        torch.manual_seed(1)
        self.discriminator = create_discriminator("patch").to(device)
        self.other = adam(self.discriminator)

    def reconstruct(self) -> tuple[Tensor, Tensor, Tensor]:
        samples, kl = self.autoencoder(self.images)
        rec = functional.l1_loss(samples, self.images) + self.perceptual(samples, self.images)
        return samples, rec, kl

    def step(self) -> None:
        torch.manual_seed(2)
        self.discriminator.requires_grad_(False)  # as Lightning toggles the two
        samples, rec, kl = self.reconstruct()
        adversarial = -self.discriminator(samples).mean()
        weight = self.model.decoder.conv_out.weight
        rec_gradient = torch.autograd.grad(rec, weight, retain_graph=True)[0]
        adversarial_gradient = torch.autograd.grad(adversarial, weight, retain_graph=True)[0]
        ratio = (rec_gradient.norm() / (adversarial_gradient.norm() + 1e-4)).clamp(0, 1e4).detach()
        self.update(rec + ratio * 0.5 * adversarial + 1e-6 * kl)
        self.discriminator.requires_grad_(True)

        self.model.requires_grad_(False)
        samples, _, _ = self.reconstruct()
        real, fake = self.discriminator(self.images), self.discriminator(samples.detach())
        loss = functional.relu(1 - real).mean() + functional.relu(1 + fake).mean()
        loss.backward()
        self.other.step()
        self.other.zero_grad()
        self.model.requires_grad_(True)


def rows(settings: Settings) -> Iterator[Row]:
    """With a small AutoencoderKL and a stand-in for LPIPS."""
    side = settings.size(128, 32)
    size = (side, 1, settings.device)
    work = f"autoencoder, adaptive weight, PatchGAN, {side} x {side}"
    yield compare(work, partial(Ours, *size), "taming's order of work", partial(Taming, *size), settings, target=0.80)
    work, before = "autoencoder before the start step", partial(Ours, *size, start_step=10**9)
    yield compare(work, before, "no adversary at all", partial(Plain, *size), settings, target=1.03)
