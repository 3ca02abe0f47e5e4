"""The command."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from pathlib import Path

os.environ.setdefault("KINETO_LOG_LEVEL", "5")  # the profiler that counts memory reports on itself otherwise
os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from benchmarks._harness import Row, Settings
from benchmarks._results import BENCHMARKS, circumstances, line, save


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Time and memory, as ratios.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones (default: all): {', '.join(BENCHMARKS)}")
    parser.add_argument("--short", action="store_true", help="tiny sizes, to see that everything runs")
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=20, help="of turns (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="on the CPU (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="file to keep the figures in, beside those of other benchmarks there")
    options = parser.parse_args()
    if unknown := [name for name in options.names if name not in BENCHMARKS]:
        parser.error(f"no benchmark is called {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    if options.pairs < 2:
        parser.error(f"--pairs {options.pairs}: give 2 or more, for quartiles; figures to keep take 20")
    if options.json and options.json.exists():
        try:
            json.loads(options.json.read_text(encoding="utf-8"))
        except ValueError:
            parser.error(f"{options.json} is no file of figures; give another as --json")
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    settings = Settings(device=options.device, pairs=2 if options.short else options.pairs, short=options.short)
    made, missed = circumstances(settings), 0
    for name in options.names or BENCHMARKS:
        found = []
        for result in importlib.import_module(f"benchmarks.{name}").rows(settings):
            print(line(result), flush=True)
            found.append(result)
            missed += isinstance(result, Row) and not result.holds
        if options.json:
            save(options.json, name, found, made)
    return 1 if missed and not options.short else 0


if __name__ == "__main__":
    sys.exit(main())
