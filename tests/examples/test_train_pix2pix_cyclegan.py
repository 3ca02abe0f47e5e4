"""pix2pix and CycleGAN as their users run them: in a process of their own, with tiny settings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

EXAMPLES = Path(__file__).parents[2] / "examples"

pytest.importorskip("skimage")


def command(name: str, out: Path, *options: object) -> list[str]:
    tiny = ("--cpu", "--batch", "2", "--side", "16")
    return [sys.executable, str(EXAMPLES / f"{name}.py"), "--out", str(out), *tiny, *map(str, options)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def run(name: str, out: Path, *options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(name, out, *options), env=environment(), capture_output=True, text=True, timeout=400)


def log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_pix2pix_trains_with_and_without_the_adversary(tmp_path: Path) -> None:
    done = run("train_pix2pix", tmp_path / "out", "--steps", 2)
    assert done.returncode == 0, done.stderr[-3000:]
    files = {
        "checkpoints",
        "comparison.png",
        "l1-alone.safetensors",
        "log.jsonl",
        "metrics.json",
        "pix2pix.safetensors",
    }
    assert {path.name for path in (tmp_path / "out").iterdir()} == files
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["L1 alone"] != metrics["pix2pix"]
    assert metrics["stated"]["holds"] in (True, False)
    lines = log(tmp_path / "out")
    assert [(line["phase"], line["step"]) for line in lines] == [
        ("L1 alone", 1),
        ("L1 alone", 2),
        ("pix2pix", 1),
        ("pix2pix", 2),
    ]
    assert ["adversarial" in line for line in lines] == [False, False, True, True]
    assert lines[0]["pixel"] == pytest.approx(lines[2]["pixel"])  # the same network on the same crops
    with Image.open(tmp_path / "out" / "comparison.png") as picture:
        assert picture.width == 4 * 64 * 4


def interrupted(name: str, out: Path, lines: int, *options: object) -> None:
    """A run that Ctrl-C ends after so many steps or some more."""
    process = subprocess.Popen(
        command(name, out, *options), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 200
    while not (out / "log.jsonl").exists() or len(log(out)) < lines:
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    try:
        _, errors = process.communicate(timeout=200)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    assert not (out / "metrics.json").exists()


@pytest.mark.parametrize("lines", [1, 9], ids=["in the first network", "in the second"])
def test_pix2pix_goes_on_where_it_was(tmp_path: Path, lines: int) -> None:
    options = ("--steps", 8, "--save-every", 2)
    interrupted("train_pix2pix", tmp_path / "cut", lines, *options)
    done = run("train_pix2pix", tmp_path / "cut", *options, "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    whole = run("train_pix2pix", tmp_path / "whole", *options)
    assert whole.returncode == 0, whole.stderr[-3000:]
    assert log(tmp_path / "cut") == log(tmp_path / "whole")  # bit by bit
    cut, uncut = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("cut", "whole"))
    assert [cut[name] for name in ("L1 alone", "pix2pix")] == [uncut[name] for name in ("L1 alone", "pix2pix")]


def test_cyclegan_goes_on_where_it_was(tmp_path: Path) -> None:
    options = ("--steps", 4, "--save-every", 2)
    interrupted("train_cyclegan", tmp_path, 1, *options)
    done = run("train_cyclegan", tmp_path, *options, "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    whole = run("train_cyclegan", tmp_path / "whole", *options)
    assert whole.returncode == 0, whole.stderr[-3000:]
    assert log(tmp_path) == log(tmp_path / "whole")  # bit by bit, with both adversaries, pools and batches
    assert [line["step"] for line in log(tmp_path)] == [1, 2, 3, 4]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert set(metrics["share"]) == {"to old", "to new"}
    assert {"old/cycle", "new/identity", "old/adversarial", "new/loss"} <= set(log(tmp_path)[0])


@pytest.mark.parametrize("name", ["train_pix2pix", "train_cyclegan"])
def test_bad_options_are_one_line(name: str, tmp_path: Path) -> None:
    done = run(name, tmp_path / "out", "--steps", 0)
    assert done.returncode != 0
    assert "--steps must be at least 1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["train_pix2pix", "train_cyclegan"])
def test_nothing_to_resume_is_one_line(name: str, tmp_path: Path) -> None:
    done = run(name, tmp_path / "out", "--resume")
    assert done.returncode == 1
    assert "there is no checkpoint in" in done.stderr
    assert "Traceback" not in done.stderr
