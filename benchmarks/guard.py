"""What the guard against NaN and infinity costs: a step with it over a step without, interleaved, as a ratio.

Usage: ``python benchmarks/guard.py [--rounds 60]``. Processor time of this thread on the CPU, elapsed time on a GPU.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch

import advloss
from advloss._update import Update


def seconds(step: Callable[[], object], device: str) -> float:
    clock = time.perf_counter if device == "cuda" else time.thread_time
    start = clock()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return clock() - start


def ratio(norm: str, rounds: int, device: str) -> str:
    adversary = advloss.Adversary(("patch", {"width": 32, "norm": norm}), "hinge", ["lecam"], seed=0).to(device)
    real, fake = torch.rand(2, 8, 3, 64, 64, device=device) * 2 - 1
    always = torch.ones((), dtype=torch.bool, device=device)
    guarded, checks = Update._all_finite, adversary._gate.check_finite
    taken: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(2 * rounds + 6):
        guard = bool(turn % 2)
        Update._all_finite = guarded if guard else lambda *args: always  # type: ignore[method-assign]
        adversary._gate.check_finite = checks if guard else lambda *args, **kwargs: None  # type: ignore[method-assign]
        taken[guard].append(seconds(lambda: adversary.discriminator_step(real, fake), device))
    Update._all_finite = guarded  # type: ignore[method-assign]
    with_guard, without = (statistics.median(taken[guard][3:]) * 1e3 for guard in (True, False))
    median = statistics.median(a / b for a, b in zip(taken[True][3:], taken[False][3:]))
    return f"patch norm={norm} on {device}: {with_guard:.2f} ms with, {without:.2f} ms without, x{median:.4f}"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    for norm in ("batch", "spectral"):
        print(ratio(norm, rounds, "cuda" if torch.cuda.is_available() else "cpu"))


if __name__ == "__main__":
    main()
