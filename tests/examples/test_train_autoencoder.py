"""The autoencoder example as its users run it: in a process of its own, with tiny settings."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import VQModel
from PIL import Image
from safetensors.torch import load_file

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_autoencoder.py"
TINY = ("--cpu", "--batch", "2", "--side", "32", "--shown", "64")
FILES = {"checkpoints", "comparison.png", "log.jsonl", "metrics.json", "model", "validation", "validation.jsonl"}
PLAIN = """
import sys
import torch
from diffusers import AutoModel

model = AutoModel.from_pretrained(sys.argv[1])
images = torch.rand(1, 3, 32, 32) * 2 - 1
assert model(images).sample.shape == images.shape
assert not any(name.startswith("advloss") for name in sys.modules)
"""

pytest.importorskip("skimage")


def environment() -> dict[str, str]:
    alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**alone, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def run(
    out: Path, *options: object, launcher: tuple[str, ...] = (), **variables: object
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *launcher, str(EXAMPLE), "--out", str(out), *TINY, *map(str, options)]
    env = {**environment(), **{name: str(value) for name, value in variables.items()}}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=400)


def log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("autoencoder") / "a new folder" / "run"
    done = run(out, "--steps", 4, "--start-step", 2, "--validate-every", 2)
    assert done.returncode == 0, done.stderr[-3000:]
    return out


def test_a_run_writes_one_folder(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == FILES | {"without_adversary"}
    metrics = json.loads((finished / "metrics.json").read_text())
    for name in ("without", "with adversary"):
        assert set(metrics[name]) == {"psnr", "ssim", "sharpness", "frechet"}
    assert metrics["without"] != metrics["with adversary"]
    assert metrics["run"]["steps"] == 4
    lines = log(finished)
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert ["adaptive_weight" in line for line in lines] == [False, False, True, True]
    with Image.open(finished / "comparison.png") as picture:
        assert picture.width > 5 * 64
    validation = [json.loads(line) for line in (finished / "validation.jsonl").read_text().splitlines()]
    assert [row.pop("step") for row in validation] == [2, 4]
    assert validation[1] == pytest.approx(metrics["with adversary"])
    assert {path.name for path in (finished / "validation").iterdir()} == {"00000002.png", "00000004.png"}


def test_without_adversary_is_the_run_that_never_has_one(finished: Path, tmp_path: Path) -> None:
    """The copy takes up everything, and sees the same crops, as a run that begins without."""
    done = run(tmp_path, "--steps", 4, "--start-step", 3, "--weight", 0, "--no-compare")
    assert done.returncode == 0, done.stderr[-3000:]
    never, copy = (
        load_file(path / "diffusion_pytorch_model.safetensors")
        for path in (tmp_path / "model", finished / "without_adversary")
    )
    assert all(torch.equal(value, copy[name]) for name, value in never.items())


def test_plain_diffusers_loads_the_model(finished: Path) -> None:
    command = [sys.executable, "-c", PLAIN, str(finished / "model")]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]


def test_a_folder_of_images_and_a_pretrained_model(finished: Path, tmp_path: Path) -> None:
    """Decoder-only, from the model of another run, without a comparison."""
    (tmp_path / "images").mkdir()
    for i in range(4):
        noise = np.random.default_rng(i).integers(0, 256, (70, 80, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "images" / f"{i}.png")
    out = tmp_path / "out"
    options = ("--images", tmp_path / "images", "--held-out", 2, "--model", finished / "model", "--decoder-only")
    done = run(out, *options, "--steps", 2, "--start-step", 1, "--no-compare", "--crop", 24)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "2 images to train on, 2 held out" in done.stdout
    assert {path.name for path in out.iterdir()} == FILES


def test_a_data_set_a_codebook_and_other_components(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    noise = [np.random.default_rng(i).integers(0, 256, (40, 50, 3), dtype=np.uint8) for i in range(3)]
    features = datasets.Features({"picture": datasets.Image()})
    columns = {"picture": [Image.fromarray(image) for image in noise]}
    datasets.Dataset.from_dict(columns, features=features).to_parquet(tmp_path / "set" / "validation.parquet")
    VQModel(norm_num_groups=4, block_out_channels=(8,), latent_channels=3, num_vq_embeddings=16).save_pretrained(
        tmp_path / "vq"
    )
    options = ("--dataset", tmp_path / "set", "--split", "validation", "--column", "picture", "--held-out", 1)
    named = (
        "--discriminator",
        "patch:width=4,depth=1,norm=none",
        "--loss",
        "hinge",
        "--regularizer",
        "lecam:weight=0.05",
    )
    steps = ("--steps", 2, "--start-step", 1, "--no-compare", "--model", tmp_path / "vq")
    done = run(tmp_path / "out", *options, *named, *steps, HF_DATASETS_CACHE=tmp_path / "cache")
    assert done.returncode == 0, done.stderr[-3000:]
    first, second = log(tmp_path / "out")
    assert first["total"] == pytest.approx(first["pixel"] + first["regularization"])  # VQGAN's weight of its codebook
    assert "discriminator/regularizers/lecam" in second


@pytest.mark.parametrize(
    ("options", "rate"), [((), 2e-3), (("--model", "some/vae"), 1e-5), (("--model", "some/vae", "--lr", "3e-5"), 3e-5)]
)
def test_a_pretrained_model_is_not_torn_apart(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], rate: float
) -> None:
    """Its rate is that of fine-tuning, a hundredth of a new model's."""
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *options])
    assert runpy.run_path(str(EXAMPLE))["parse"]().lr == rate


def test_two_processes(tmp_path: Path) -> None:
    launcher = (
        "-m",
        "torch.distributed.run",
        "--nproc_per_node",
        "2",
        "--rdzv_backend",
        "c10d",
        "--rdzv_endpoint",
        "localhost:0",
    )
    steps = ("--steps", 3, "--start-step", 1)
    done = run(tmp_path, *steps, launcher=launcher)
    assert done.returncode == 0, done.stderr[-3000:]
    assert {path.name for path in tmp_path.iterdir()} == FILES | {"without_adversary"}
    assert [line["step"] for line in log(tmp_path)] == [1, 2, 3]
    assert len(list(tmp_path.glob("checkpoints/*/process_*"))) == 2


def test_interrupted_and_resumed(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE), "--out", str(tmp_path), *TINY, "--steps", "6", "--start-step", "4"]
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
    assert not (tmp_path / "model").exists()
    done = run(tmp_path, "--steps", 6, "--start-step", 4, "--resume")
    assert done.returncode == 0, done.stderr[-3000:]
    assert [line["step"] for line in log(tmp_path)] == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--resume",), "there is no checkpoint"),
        (("--images", "nowhere"), "there is no image in nowhere"),
        (("--start-step", 100, "--steps", 2), "--start-step"),
        (("--steps", 0), "--steps must be above 0"),
        (("--lr", -1), "--lr must be above 0"),
        (("--lpips",), "LPIPS"),
        (("--model", "no/such-model"), "no/such-model"),
        (("--model", "."), "config.json"),
        (("--dataset", "no/such-data"), "no/such-data"),
        (("--discriminator", "pach"), "Did you mean"),
        (("--batch", 2000), "no more real batches"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, options: tuple[object, ...], words: str) -> None:
    done = run(tmp_path / "out", *options)
    assert done.returncode != 0
    assert words in done.stderr
    assert "Traceback" not in done.stderr
