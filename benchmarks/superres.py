"""The time of an adversarial step of super-resolution, as a ratio of loops that take turns in one run.

    python -m benchmarks.superres
    python -m benchmarks.superres --rounds 30 --json

ESRGAN's objective (L1, perceptual, relativistic average with the VGG-style discriminator, EMA) over the loop as BasicSR
orders its work (basicsr/models/esrgan_model.py): in the discriminator's turn fakes go through it once for the real side's
mean, with a graph that nobody uses, and once more for their own; the average of the weights is kept tensor by tensor. The same
networks, batch and perceptual network in both; a ratio is taken in every round, and the median reported.
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
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional

from advloss import Adversary, create_discriminator
from advloss_superres import Objective, Phase, PhasedTraining, RRDBNetwork

TARGETS = {"adversarial step / BasicSR's order": 0.90}
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

    def __init__(self, side: int, batch: int, width: int) -> None:
        torch.manual_seed(0)
        self.model = RRDBNetwork(SCALE, width=32, growth=16, depth=1)
        self.perceptual = Perceptual()
        high = torch.rand(batch, 3, side, side) * 2 - 1
        self.pair = functional.avg_pool2d(high, SCALE), high
        self.discriminator = create_discriminator("vgg", resolution=side, width=width)


class Ours(Player):
    """`PhasedTraining`'s step."""

    def __init__(self, side: int, batch: int, width: int) -> None:
        super().__init__(side, batch, width)
        adversary = Adversary(self.discriminator, "relativistic-average", weight=0.005, reuse_real=True, seed=0)
        phase = Phase(
            name="adversarial",
            objective=Objective(adversary, pixel_weight=0.01, perceptual=self.perceptual),
            batches=[self.pair],
            steps=10**9,
            optimizer=lambda parameters: torch.optim.Adam(parameters, lr=1e-4, fused=True),
        )
        self.training = PhasedTraining(self.model, [phase], accelerator=Accelerator(cpu=True))

    def step(self) -> None:
        self.training.step()


class BasicSR(Player):
    """The order of work of BasicSR's ESRGANModel."""

    def __init__(self, side: int, batch: int, width: int) -> None:
        super().__init__(side, batch, width)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-4)
        self.other = torch.optim.Adam(self.discriminator.parameters(), lr=1e-4)
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


def measure(rounds: int = 15, side: int = 128, batch: int = 2, width: int = 64) -> list[Ratio]:
    """Both loops once in every round, in an order that alternates, after two rounds that do not count."""
    torch.set_flush_denormal(True)
    loops: dict[str, Callable[[], None]] = {
        "basicsr": BasicSR(side, batch, width).step,
        "ours": Ours(side, batch, width).step,
    }
    times: dict[str, list[float]] = {name: [] for name in loops}
    for number in range(rounds + 2):
        for name in list(loops) if number % 2 else reversed(list(loops)):
            began = time.process_time()
            loops[name]()
            times[name].append(time.process_time() - began)
    ((name, target),) = TARGETS.items()
    one, other = times["ours"][2:], times["basicsr"][2:]
    ratios = [a / b for a, b in zip(one, other)]
    quartiles = statistics.quantiles(ratios, n=4)
    ratio = Ratio(
        name=name,
        median=statistics.median(ratios),
        low=quartiles[0],
        high=quartiles[2],
        target=target,
        seconds=statistics.median(one),
        seconds_of_other=statistics.median(other),
    )
    return [ratio]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="(default: %(default)s)")
    parser.add_argument("--side", type=int, default=128, help="of the originals (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=2, help="images in a batch (default: %(default)s)")
    parser.add_argument("--width", type=int, default=64, help="of the discriminator (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    ratios = measure(options.rounds, options.side, options.batch, options.width)
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
