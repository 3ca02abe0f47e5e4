"""The picture of curves in docs/pipelines.md."""

from __future__ import annotations

from pathlib import Path

import pytest

import advloss
from benchmarks.curves import PANELS, curve, draw

RUNS = Path(__file__).parents[1] / "core" / "recordings"


def test_curves_of_two_runs(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    image = pytest.importorskip("PIL.Image")
    runs = {name: advloss.read_log(RUNS / f"{name}-0.jsonl") for name in ("healthy-ring", "discriminator-too-strong")}
    draw(tmp_path / "curves.png", runs)
    with image.open(tmp_path / "curves.png") as picture:
        assert picture.size == (1320, 352)
    for name, _ in PANELS.values():
        steps, values = curve(runs["healthy-ring"], name)
        assert len(steps) == len(values)
        assert steps == sorted(steps)
    _, healthy = curve(runs["healthy-ring"], "gap")
    _, strong = curve(runs["discriminator-too-strong"], "gap")
    assert strong[-1] > healthy[-1]
