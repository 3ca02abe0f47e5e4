"""What a generator finds, over seeds, beside its targets: modes, share of high quality, reverse KL, and processor time.

    python -m benchmarks.gan                              # ring and grid, seeds 0 to 2
    python -m benchmarks.gan inversion --seeds 0 1 2
    python -m benchmarks.gan stacked-digits               # R3GAN's objective, and DCGAN beside it
    python -m benchmarks.gan lessons                      # every lesson, whole

Each training is a run of examples/train_gan.py as a user would start it. Published on ring and grid: PacGAN2 7.9/8,
95.6%, 0.07; PacGAN4 24.8/25, 93.6%, 0.04 (arXiv:1712.04086, tables 1 and 2).
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).parents[1] / "examples" / "train_gan.py"
TARGETS: dict[str, dict[str, float]] = {
    "ring": {"captured": 8, "quality": 0.95, "reverse_kl": 0.05},
    "grid": {"captured": 25, "quality": 0.90, "reverse_kl": 0.10},
    "stacked-digits": {"captured": 1000, "reverse_kl": 0.25},
}
BESIDE = {  # runs without a target, for comparison
    "stacked-digits": [
        *("--generator", "dcgan:width=32", "--discriminator", "dcgan:width=32", "--loss", "non-saturating"),
        *("--regularizer", "--batch", "64"),
    ]
}
MOST = {"reverse_kl"}  # figures that are good when small


def run(arguments: list[str], folder: Path) -> tuple[int, float, str]:
    """Exit status of the example, seconds of processor time that it took, and what it printed."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, str(SCRIPT), *arguments, "--tracker", "none", "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.returncode, used, done.stdout + (done.stderr[-2000:] if done.returncode > 1 else "")


def train(data: str, seed: int, more: list[str]) -> dict[str, Any]:
    """Figures of one training."""
    with tempfile.TemporaryDirectory() as folder:
        status, seconds, text = run(["--data", data, "--seed", str(seed), *more], Path(folder))
        if status:
            raise SystemExit(text)
        metrics = json.loads((Path(folder) / "metrics.json").read_text())
    keep = {name: metrics[name] for name in ("captured", "modes", "quality", "reverse_kl", "steps") if name in metrics}
    return {"data": data, "seed": seed, **keep, "processor_seconds": round(seconds, 1), "options": " ".join(more)}


def holds(figures: dict[str, Any]) -> bool:
    """Whether all targets are met."""
    wanted = TARGETS[figures["data"]].items()
    return all(figures[name] <= value if name in MOST else figures[name] >= value for name, value in wanted)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", default=["ring", "grid"], help="(default: ring grid)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="(default: 0 1 2)")
    given = parser.parse_args()
    lessons = set(given.what) - TARGETS.keys()
    good = True
    for what in given.what:
        for seed in given.seeds:
            if what in lessons:
                good &= teach(what, seed)
                continue
            figures = train(what, seed, [])
            good &= holds(figures)
            print(json.dumps({**figures, "holds": holds(figures)}), flush=True)
            if what in BESIDE:
                print(json.dumps(train(what, seed, BESIDE[what])), flush=True)
    return 0 if good else 1


def teach(what: str, seed: int) -> bool:
    """Run one lesson, or all."""
    from advloss_gan.lessons import LESSONS

    good = True
    for name in LESSONS if what == "lessons" else [what]:
        with tempfile.TemporaryDirectory() as folder:
            status, seconds, text = run(["--lesson", name, "--seed", str(seed)], Path(folder))
        print(f"{text.rstrip()}\nseed {seed}, {seconds:.0f} s of processor time\n", flush=True)
        good &= status == 0
    return good


if __name__ == "__main__":
    raise SystemExit(main())
