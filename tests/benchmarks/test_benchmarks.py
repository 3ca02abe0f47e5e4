"""The benchmarks run, compare what is the same, and count memory rightly. No time is asserted."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from benchmarks import gpu
from benchmarks._harness import Row, Settings, Table, compare, peak_bytes
from benchmarks._results import BENCHMARKS

ROOT = Path(__file__).parents[2]
SHORT = Settings(short=True, pairs=2)


@pytest.mark.parametrize("name", [name for name in BENCHMARKS if name != "gpu"])
def test_short_form(name: str) -> None:
    for extra in ("accelerate", "diffusers", "timm", "sklearn", "tqdm"):
        pytest.importorskip(extra)
    check(list(importlib.import_module(f"benchmarks.{name}").rows(SHORT)))


def test_what_is_for_a_gpu_runs_on_any_device() -> None:
    assert not list(gpu.rows(SHORT))  # takes long on a CPU, and says nothing
    results = list(gpu.figures(SHORT))
    check(results)
    share = results[-1].rows[0]
    assert share[-1] == pytest.approx(share[3] / share[4])
    assert share[-1] > 0


def check(results: list[Any]) -> None:
    assert results
    for result in results:
        if isinstance(result, Row):
            assert 0 < result.low <= result.ratio <= result.high
            assert result.megabytes is not None
            assert result.megabytes > 0
        else:
            assert isinstance(result, Table)
            assert all(len(row) == len(result.columns) for row in result.rows)


class Adds:
    """Work whose result and memory are known."""

    def __init__(self, number: float, copies: int = 1) -> None:
        self.number, self.copies = number, copies

    def step(self) -> None:
        self.held = [torch.full((1000,), self.number) for _ in range(self.copies)]

    def numbers(self) -> Mapping[str, Tensor]:
        return {"sum": self.held[0]}


def test_loops_that_compute_different_things_are_not_compared() -> None:
    with pytest.raises(AssertionError, match="not the same numbers"):
        compare("one", lambda: Adds(1.0), "two", lambda: Adds(1.001), SHORT)
    row = compare("one", lambda: Adds(1.0), "two", lambda: Adds(1.001), SHORT, agreement=None)
    assert row.difference is None
    assert compare("one", lambda: Adds(1.0), "one", lambda: Adds(1.0), SHORT).difference == 0.0


def test_a_peak_counts_what_is_held_at_once() -> None:
    """While a step fills anew what it holds, both are there: 4,000 bytes each."""
    for copies in (1, 3):
        assert peak_bytes(lambda: Adds(1.0, copies), "cpu") == 8000 * copies  # noqa: B023


def test_results_are_kept_beside_those_of_other_benchmarks(tmp_path: Path) -> None:
    path = tmp_path / "found" / "cpu.json"
    path.parent.mkdir()
    path.write_text('{"other": 1}', encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks", "listing", "--short", "--json", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert "Listing the catalogue" in done.stdout
    kept = json.loads(path.read_text(encoding="utf-8"))
    assert kept["other"] == 1
    assert kept["listing"]["circumstances"]["torch"] == torch.__version__
    assert kept["listing"]["tables"][0]["rows"]


def test_an_unknown_name_is_an_error() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "hing"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 2
    assert "no benchmark is called hing; there are hinge" in done.stderr
