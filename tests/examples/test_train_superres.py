"""The super-resolution example as its users run it: in a process of its own, with tiny settings."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from advloss_superres import read_weights

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_superres.py"
TINY = ("--cpu", "--batch", "2", "--side", "16", "--shown", "1")
FILES = {"adversarial.safetensors", "checkpoints", "comparison.png", "log.jsonl", "metrics.json", "psnr.safetensors"}
STEPS = ("--psnr-steps", "2", "--adversarial-steps", "2")

pytest.importorskip("skimage")


def environment() -> dict[str, str]:
    alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**alone, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def run(out: Path, *options: object, launcher: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *launcher, str(EXAMPLE), "--out", str(out), *TINY, *map(str, options)]
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=400)


def log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def folder(path: Path, count: int, side: int) -> Path:
    path.mkdir(parents=True)
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (side, side + 4, 3), dtype=np.uint8)
        Image.fromarray(noise).save(path / f"{number}.png")
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("superres") / "a new folder" / "run"
    done = run(out, *STEPS, "--alpha", 0.5)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_a_run_of_both_phases_writes_one_folder(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == FILES | {"interpolated.safetensors"}
    metrics = json.loads((finished / "metrics.json").read_text())
    assert list(metrics) == ["bicubic", "psnr", "adversarial", "alpha 0.5", "run"]
    assert set(metrics["psnr"]) == {"psnr", "ssim", "high_frequency"}
    assert metrics["psnr"] != metrics["adversarial"]
    lines = log(finished)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert [line["phase"] for line in lines] == ["psnr"] * 2 + ["adversarial"] * 2
    assert ["discriminator/loss" in line for line in lines] == [False, False, True, True]
    with Image.open(finished / "comparison.png") as picture:
        assert picture.width == 6 * 64 * 4  # low, bicubic, psnr, adversarial, alpha, truth
    psnr, adversarial, between = (
        read_weights(finished / f"{name}.safetensors") for name in ("psnr", "adversarial", "interpolated")
    )
    assert (psnr[1]["phase"], adversarial[1]["phase"]) == ("psnr", "adversarial")
    assert between[1]["phase"] == "interpolated"
    for name, tensor in between[0].items():
        torch.testing.assert_close(tensor, (psnr[0][name] + adversarial[0][name]) / 2)


def test_a_single_phase_from_the_weights_of_another_run(finished: Path, tmp_path: Path) -> None:
    images = folder(tmp_path / "images", 4, 40)
    (images / "broken.png").write_bytes(b"no image")
    out = tmp_path / "out"
    options = ("--images", images, "--held-out", 2, "--degradation", "real-esrgan", "--adversary", "real-esrgan")
    begin = ("--phase", "adversarial", "--init", finished / "psnr.safetensors")
    done = run(out, *options, *begin, "--adversarial-steps", 1, "--feature-matching", 1, "--tile", 16)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 images to train on, 2 held out" in done.stdout
    assert "1 file skipped" in done.stdout
    assert "broken.png" in done.stdout
    assert {path.name for path in out.iterdir()} == FILES - {"psnr.safetensors"}
    metrics = json.loads((out / "metrics.json").read_text())
    assert list(metrics) == ["bicubic", "psnr", "adversarial", "run"]


def test_real_pairs_and_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    onnxruntime = pytest.importorskip("onnxruntime")
    high, low = folder(tmp_path / "high", 3, 66), folder(tmp_path / "low", 4, 22)
    for path in low.iterdir():
        with Image.open(path) as image:
            image.crop((0, 0, 23, 22)).save(path)
    options = ("--images", high, "--low", low, "--held-out", 1, "--scale", 3, "--side", 12, "--network", "rrdb")
    done = run(tmp_path / "out", *options, "--phase", "psnr", "--psnr-steps", 1, "--onnx")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 images to train on, 1 held out" in done.stdout
    assert "1 file skipped" in done.stdout
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "network.onnx"))
    (made,) = session.run(None, {"low": np.zeros((1, 3, 10, 12), np.float32)})
    assert made.shape == (1, 3, 30, 36)


@pytest.mark.parametrize("adversary", ["esrgan", "relativistic"])
def test_other_adversaries(finished: Path, tmp_path: Path, adversary: str) -> None:
    begin = ("--phase", "adversarial", "--init", finished / "psnr.safetensors", "--adversarial-steps", 1)
    images = folder(tmp_path / "images", 2, 40)
    done = run(tmp_path / "out", *begin, "--images", images, "--held-out", 1, "--adversary", adversary)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize(
    ("options", "words"),
    [(("--lpips",), "LPIPS"), (("--onnx",), "ONNX needs the package onnxscript: pip install")],
)
def test_what_is_missing_shows_before_training(tmp_path: Path, options: tuple[str, ...], words: str) -> None:
    """Also in a run of the PSNR phase alone, whose objective needs none of it."""
    argv = [str(EXAMPLE), "--out", str(tmp_path / "out"), *TINY, "--phase", "psnr", "--psnr-steps", "1", *options]
    hidden = "sys.modules |= dict.fromkeys(['onnxscript', 'lpips'])"
    code = f"import runpy, sys; {hidden}; sys.argv = {argv!r}; runpy.run_path({argv[0]!r}, run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=400)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "log.jsonl").exists()


def test_esrgan_fits_by_default(finished: Path, tmp_path: Path) -> None:
    images = folder(tmp_path / "images", 3, 70)
    command = [sys.executable, str(EXAMPLE), "--cpu", "--out", str(tmp_path / "out"), "--images", str(images)]
    begin = ("--phase", "adversarial", "--init", str(finished / "psnr.safetensors"), "--adversarial-steps", "1")
    sizes = ("--held-out", "1", "--batch", "2", "--shown", "1", "--adversary", "esrgan")
    done = subprocess.run([*command, *begin, *sizes], env=environment(), capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]


def test_first_weights_are_called_what_they_are(finished: Path, tmp_path: Path) -> None:
    begin = ("--phase", "adversarial", "--adversarial-steps", 1)
    adversarial = ("--init", finished / "adversarial.safetensors")
    done = run(tmp_path, *begin, *adversarial)
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert list(metrics) == ["bicubic", "before (adversarial)", "adversarial", "run"]
    done = run(tmp_path / "other", *begin, *adversarial, "--alpha", 0.5)
    assert "--alpha begins at the weights of a PSNR phase" in done.stderr
    done = run(finished, *begin, *adversarial)
    assert "would be written over by this run: give another --out" in done.stderr


def test_interrupted_and_resumed(tmp_path: Path) -> None:
    steps = ("--psnr-steps", "3", "--adversarial-steps", "3")
    command = [sys.executable, str(EXAMPLE), "--out", str(tmp_path), *TINY, *steps]
    process = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 200
    while not (tmp_path / "log.jsonl").exists() or not log(tmp_path):
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
    assert not (tmp_path / "metrics.json").exists()
    done = run(tmp_path, *steps, "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line["step"] for line in log(tmp_path)] == [1, 2, 3, 4, 5, 6]


def test_the_reverse_order_is_refused(finished: Path, tmp_path: Path) -> None:
    done = run(tmp_path / "out", "--phase", "psnr", "--init", finished / "adversarial.safetensors")
    assert done.returncode == 1
    assert "'psnr' has no adversary and would follow 'adversarial'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--resume",), "there is no checkpoint"),
        (("--images", "nowhere"), "there is no usable image in nowhere"),
        (("--psnr-steps", 0), "--psnr-steps must be at least 1"),
        (("--phase", "adversarial"), "begins with the weights of a PSNR phase"),
        (("--alpha", 2), "--alpha is from 0 to 1"),
        (("--network", "some.pth", "--phase", "adversarial", "--alpha", 0.5), "lies between two phases"),
        (("--tile", 20), "--tile 20: give a multiple of 16"),
        (("--low", "nowhere"), "--low needs --images"),
        (("--side", 15), "give a multiple of the scale 2"),
        (("--network", "nowhere.pth"), "holds no network"),
        (("--adversary", "esrgan", "--side", 24), "resolution=24"),
        (("--adversary", "esrgan", "--scale", 3), "which --scale 3 does not divide: give --adversary real-esrgan"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, options: tuple[object, ...], words: str) -> None:
    done = run(tmp_path / "out", *options)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
