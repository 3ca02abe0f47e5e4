"""Results as lines for the terminal and as JSON, which docs/tables.py writes docs/benchmarks.md from."""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks._harness import Row, Settings, Table
from benchmarks._markdown import table

ROOT = Path(__file__).parents[1]
SOURCES = ("advloss", "plugins", "integrations", "examples", "benchmarks/*.py")
PACKAGES = ("accelerate", "diffusers", "peft", "timm", "transformers")
BENCHMARKS = (
    "hinge",
    "r1",
    "wgan_gp",
    "r3gan",
    "autoencoder",
    "superres",
    "features",
    "distillation",
    "distill_estimate",
    "distill_memory",
    "overhead",
    "options",
    "memory",
    "growth",
    "listing",
    "gpu",
)


def line(result: Row | Table) -> str:
    """For the terminal."""
    if isinstance(result, Table):
        return "\n".join([f"{result.title}:", *table(result.columns, result.rows)])
    target = "" if result.target is None else f" (target {result.target:.2f}: {'holds' if result.holds else 'MISSED'})"
    memory = "" if result.memory is None else f"; memory x{result.memory:.3f}"
    return (
        f"{result.work} / {result.against}: x{result.ratio:.3f}{target}, quartiles {result.low:.3f} to {result.high:.3f}; "
        f"{result.milliseconds:.1f} ms over {result.milliseconds_of_other:.1f} ms{memory}"
    )


def save(path: Path, name: str, results: Sequence[Row | Table], made: dict[str, Any]) -> None:
    """Write one benchmark's results, and what they were `made` with, to a file that may hold others."""
    kept = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    kept[name] = {
        "circumstances": made,
        "rows": [row.as_dict() for row in results if isinstance(row, Row)],
        "tables": [vars(one) for one in results if isinstance(one, Table)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def circumstances(settings: Settings) -> dict[str, Any]:
    """What the figures were taken with."""
    changed = _git("status", "--porcelain", "--", *SOURCES)
    cuda = torch.device(settings.device).type == "cuda"
    return {
        "commit": _git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else ""),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "device": torch.cuda.get_device_name() if cuda else f"{_processor()}, {torch.get_num_threads()} thread",
        "packages": {name: version(name) for name in PACKAGES if find_spec(name)},
        "pairs": settings.pairs,
        "python": platform.python_version(),
        "short": settings.short,
        "torch": torch.__version__,
    }


def _git(*command: str) -> str:
    try:
        return subprocess.run(["git", *command], cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()
    except FileNotFoundError:
        return ""


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    names = [row.partition(":")[2].strip() for row in info.read_text().splitlines() if row.startswith("model name")]
    return names[0] if names else platform.processor()
