"""Memory of a distillation: sizes as published, estimates beside real steps in miniature, and running out of it."""

from __future__ import annotations

import json
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import distill_estimate, distill_memory
from benchmarks._harness import Settings, peak_bytes
from benchmarks._published import PUBLISHED, Published

KEPT = Path(__file__).parents[2] / "benchmarks" / "results" / "cpu.json"
BY_NAME = {published.name: published for published in PUBLISHED}


@pytest.fixture(params=PUBLISHED, ids=lambda published: published.name)
def published(request: pytest.FixtureRequest) -> Published:
    return request.param


def kept(benchmark: str, path: Path = KEPT) -> list[list[Any]]:
    results = json.loads(path.read_text(encoding="utf-8"))
    return [row for table in results.get(benchmark, {"tables": []})["tables"] for row in table["rows"]]


def test_a_network_has_as_many_parameters_as_published(published: Published) -> None:
    pipeline, family = published.build()
    network = family.network(pipeline)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(published.parameters, rel=0.02)
    assert family.resolution == published.resolution
    assert family.resolution == type(family)(pipeline).resolution  # unasked
    family.check(published.conditions(1, "meta"))


def test_dit_is_larger_than_published_by_what_diffusers_repeats() -> None:
    pipeline, _ = BY_NAME["DiT-XL/2"].build()
    blocks = pipeline.transformer.transformer_blocks
    repeated = sum(p.numel() for block in blocks[1:] for p in block.norm1.emb.parameters())
    whole = sum(p.numel() for p in pipeline.transformer.parameters())
    assert whole - repeated == pytest.approx(0.675e9, rel=0.02)


@pytest.mark.parametrize("lora", [0, 64])
def test_a_real_step_takes_what_is_estimated(published: Published, lora: int) -> None:
    """On a quarter of the side, where what the estimate leaves out counts most."""
    side = published.small_resolution // 4
    row = distill_memory.measured(published, "ladd", lora, side, "cpu", small=True, steps=1)
    *_, peak, expected, ratio = row
    assert ratio == pytest.approx(peak / expected)
    assert 0.95 < ratio < (1.35 if lora else 1.15), row


def test_figures_that_are_kept_are_todays() -> None:
    """Else run ``python -m benchmarks distill_estimate --json benchmarks/results/cpu.json``, and ``docs/tables.py``."""
    rows = kept("distill_estimate")
    assert [row[0] for row in rows[::2]] == list(BY_NAME)
    for row in rows:
        if row[0] in ("Stable Diffusion 1.5", "Flux.1-dev", "DiT-XL/2"):
            lora = distill_estimate.RANK if row[3] != "full" else 0
            name, pixels, billion, student, *sizes = distill_estimate.estimated(BY_NAME[row[0]], lora)
            assert row[:4] == [name, pixels, billion, student]
            assert row[4:] == pytest.approx(sizes, rel=1e-3)


def test_estimates_that_were_measured_are_near() -> None:
    """On every device of which results are kept."""
    for path in KEPT.parent.glob("*.json"):
        for row in kept("distill_memory", path):
            assert row[-1] == "" or 0.8 < row[-1] < (1.35 if "LoRA" in row[3] else 1.15), (path.name, row)


def test_out_of_memory_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref[Any]] = []

    def step(self: Any) -> None:
        alive.append(weakref.ref(self))
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(distill_memory.Step, "step", step)
    (table,) = distill_memory.rows(Settings(short=True))
    assert [row[-3] for row in table.rows] == ["out of memory"] * 4
    assert len(alive) == 4
    assert not any(one() for one in alive)


def test_a_peak_of_warm_steps_leaves_out_the_first() -> None:
    class Grows:
        """Takes 8,000 bytes to be built and in its first step, and 2,000 in those after it, beside 400 that stay."""

        def __init__(self) -> None:
            torch.zeros(2000)
            self.held, self.size = torch.zeros(100), 2000

        def step(self) -> None:
            torch.zeros(self.size)
            self.size = 500

    assert peak_bytes(Grows, "cpu") == 8400
    assert peak_bytes(Grows, "cpu", warm=1) == 2400
