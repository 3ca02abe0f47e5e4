"""The time of an autoencoder's step, as ratios of loops that take turns in one run.

    python -m benchmarks.autoencoder
    python -m benchmarks.autoencoder --rounds 30 --json

Full step: with adaptive weight and discriminator, over the loop as taming-transformers orders its work
(taming/modules/losses/vqperceptual.py under Lightning's two optimizers): the weight by two retained backward passes, the
reconstruction and the perceptual term once more for the discriminator. Before the start step: over a loop without any
adversary. The same model, batch and perceptual network in all; a ratio is taken in every round, and the median reported.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional

from advloss import Adversary, create_discriminator
from advloss_autoencoder import Autoencoder, Objective, last_layer

TARGETS = {"full step / taming's order": 0.80, "before the start step / no adversary": 1.03}


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
    """A loop with a model and an optimizer of its own."""

    def __init__(self, side: int, batch: int) -> None:
        torch.manual_seed(0)
        widths = (32, 64, 64)
        self.model = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * len(widths),
            up_block_types=("UpDecoderBlock2D",) * len(widths),
            block_out_channels=widths,
            norm_num_groups=8,
            mid_block_add_attention=False,
        )
        self.autoencoder, self.perceptual = Autoencoder(self.model), Perceptual()
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        self.images = torch.rand(batch, 3, side, side) * 2 - 1

    def update(self, loss: Tensor) -> None:
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()


class Plain(Player):
    """No adversary."""

    def step(self) -> None:
        samples, kl = self.autoencoder(self.images)
        loss = functional.l1_loss(samples, self.images) + self.perceptual(samples, self.images) + 1e-6 * kl
        self.update(loss)


class Ours(Player):
    """The objective and the adversary; before the start step if it lies far ahead."""

    def __init__(self, side: int, batch: int, start_step: int = 0) -> None:
        super().__init__(side, batch)
        adversary = Adversary("patch", "hinge", weight=0.5, start_step=start_step, seed=0)
        self.objective = Objective(adversary, last_layer(self.model), perceptual=self.perceptual)

    def step(self) -> None:
        reconstruction = self.autoencoder(self.images)
        self.update(self.objective(reconstruction, self.images).total)
        self.objective.discriminator_step(reconstruction, self.images)


class Taming(Player):
    """The order of work of taming-transformers."""

    def __init__(self, side: int, batch: int) -> None:
        super().__init__(side, batch)
        self.discriminator = create_discriminator("patch")
        self.other = torch.optim.Adam(self.discriminator.parameters(), lr=2e-4, betas=(0.0, 0.99))

    def reconstruct(self) -> tuple[Tensor, Tensor, Tensor]:
        samples, kl = self.autoencoder(self.images)
        rec = functional.l1_loss(samples, self.images) + self.perceptual(samples, self.images)
        return samples, rec, kl

    def step(self) -> None:
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


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """One claim: the median over rounds of one loop's time over another's."""

    name: str
    median: float
    low: float
    high: float
    target: float
    seconds: float
    seconds_of_other: float

    @property
    def holds(self) -> bool:
        """Whether the median is at most the target."""
        return self.median <= self.target


def measure(rounds: int = 15, side: int = 128, batch: int = 2) -> list[Ratio]:
    """All loops once in every round, in an order that alternates, after two rounds that do not count."""
    torch.set_flush_denormal(True)
    loops: dict[str, Callable[[], None]] = {
        "plain": Plain(side, batch).step,
        "before": Ours(side, batch, start_step=10**9).step,
        "taming": Taming(side, batch).step,
        "ours": Ours(side, batch).step,
    }
    times: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(rounds + 2):
        for name in list(loops) if number % 2 else reversed(list(loops)):
            began = time.perf_counter()
            loops[name]()
            times[name].append(time.perf_counter() - began)
    pairs = zip(TARGETS.items(), (("ours", "taming"), ("before", "plain")))
    return [_ratio(name, target, times[one][2:], times[other][2:]) for (name, target), (one, other) in pairs]


def _ratio(name: str, target: float, one: list[float], other: list[float]) -> Ratio:
    ratios = [a / b for a, b in zip(one, other)]
    quartiles = statistics.quantiles(ratios, n=4)
    return Ratio(
        name=name,
        median=statistics.median(ratios),
        low=quartiles[0],
        high=quartiles[2],
        target=target,
        seconds=statistics.median(one),
        seconds_of_other=statistics.median(other),
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="(default: %(default)s)")
    parser.add_argument("--side", type=int, default=128, help="of the images (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=2, help="images in a batch (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    ratios = measure(options.rounds, options.side, options.batch)
    if options.json:
        print(json.dumps([{**vars(ratio), "holds": ratio.holds} for ratio in ratios], indent=2))
    else:
        for r in ratios:
            spread = f"{r.low:.3f} to {r.high:.3f}"
            times = f"{r.seconds:.3f} s over {r.seconds_of_other:.3f} s"
            print(f"{r.name}: {r.median:.3f} (quartiles {spread}; target {r.target:.2f}; {times})")
    return 0 if all(ratio.holds for ratio in ratios) else 1


if __name__ == "__main__":
    raise SystemExit(main())
