"""What diagnostics cost: a training step with a HealthMonitor over a step without, interleaved; and what a discriminator
step and a generator's turn cost with their measurements over the same without.

Usage: ``python -m benchmarks.health [--rounds 600]``. Processor time of this thread on the CPU, elapsed time on a GPU.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

import advloss
from advloss._passing import PassingGradient
from advloss._players import Players

GAMES: dict[str, tuple[str, dict[str, object], tuple[int, ...]]] = {
    "mlp on points, batch 256": ("mlp", {"in_features": 2, "width": 64}, (256, 2)),
    "patch on 32 x 32, batch 16": ("patch", {"width": 32, "depth": 2, "norm": "none"}, (16, 3, 32, 32)),
    "patch with batch norm on 64 x 64, batch 8": ("patch", {"width": 32, "depth": 2}, (8, 3, 64, 64)),
}


def game(name: str, device: str) -> tuple[advloss.Adversary, Callable[[], advloss.Report]]:
    """An adversary, and a step of both players."""
    discriminator, options, shape = GAMES[name]
    torch.manual_seed(0)
    adversary = advloss.Adversary((discriminator, options), "non-saturating", {"r1": {"every": 16}}, seed=0).to(device)
    if len(shape) == 2:
        generator: nn.Module = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 2))
    else:
        generator = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 3, 3, padding=1), nn.Tanh())
    generator.to(device)
    optimizer = torch.optim.Adam(generator.parameters(), lr=1e-4, fused=True)
    real: Tensor = torch.rand(shape, device=device) * 2 - 1

    def step() -> advloss.Report:
        fake = generator(torch.randn(shape, device=device))
        optimizer.zero_grad()
        adversary.generator_loss(fake, real).backward()
        optimizer.step()
        return adversary.discriminator_step(real, fake)

    return adversary, step


def seconds(call: Callable[[], object], device: str) -> float:
    clock = time.perf_counter if device == "cuda" else time.thread_time
    start = clock()
    call()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def monitor_share(name: str, rounds: int, device: str) -> float:
    """Time in the monitor over time in steps, over whole looks: medians would leave the looks out."""
    adversary, step = game(name, device)
    monitor = advloss.HealthMonitor(adversary, warn=lambda finding: None)
    in_steps = in_monitor = 0.0
    for turn in range(600 + rounds):  # the first 600 fill its memory
        start = time.thread_time()
        report = step()
        between = time.thread_time()
        monitor(report)
        end = time.thread_time()
        if turn >= 600:
            in_steps, in_monitor = in_steps + between - start, in_monitor + end - between
    return in_monitor / in_steps


def measurement_ratio(name: str, rounds: int, device: str) -> float:
    """A step with hook and signals over one without, by sums, which hold steps of all kinds; in pairs, the first by lot."""
    _, step = game(name, device)
    watch, signals = PassingGradient.watch, Players._measure
    taken = {True: 0.0, False: 0.0}
    for turn in range(rounds):
        for measuring in random.sample((True, False), 2):
            PassingGradient.watch = watch if measuring else lambda *args: None  # type: ignore[method-assign]
            Players._measure = signals if measuring else lambda *args: None  # type: ignore[method-assign]
            time_taken = seconds(step, device)
            taken[measuring] += time_taken if turn >= 20 else 0.0
    PassingGradient.watch, Players._measure = watch, signals  # type: ignore[method-assign]
    return taken[True] / taken[False]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=600)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for name in GAMES:
        print(
            f"{name} on {device}: monitor {monitor_share(name, rounds, device):.2%} of a step, "
            f"measurements x{measurement_ratio(name, rounds, device):.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
