"""The example script: what it writes, how it stops, what it refuses."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "examples" / "train_gan.py"
FILES = {"generator.safetensors", "metrics.json", "log.jsonl", "ring.png", "checkpoints", "curves"}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "1"}

pytest.importorskip("matplotlib")


def run(*arguments, launcher=()):
    command = [sys.executable, *launcher, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=270)


def test_default_run_writes_one_folder(tmp_path):
    out = tmp_path / "deep" / "gan"
    done = run("--steps", 20, "--seed", 3, "--out", out)
    assert done.returncode == 0, done.stderr
    assert "finished after 20 steps" in done.stdout
    assert "/8" in done.stdout
    assert {file.name for file in out.iterdir()} == FILES
    metrics = json.loads((out / "metrics.json").read_text())
    assert (metrics["modes"], metrics["steps"], metrics["interrupted"]) == (8, 20, False)
    assert metrics["settings"]["seed"] == 3
    assert len((out / "log.jsonl").read_text().splitlines()) == 20


def test_components_by_name_and_a_used_folder(tmp_path):
    """Only the run's own files are overwritten."""
    for name in ("notes.txt", "metrics.json"):
        (tmp_path / name).write_text("mine")
    done = run(
        *("--discriminator", "mlp:width=16,norm=spectral", "--loss", "hinge", "--discriminator-steps", 2),
        *("--regularizer", "r1:weight=0.1,every=3", "--regularizer", "lecam", "--steps", 3, "--out", tmp_path),
        *("--generator", "mlp:width=16,latent_features=5", "--lr", "1e-3", "--discriminator-lr", "1e-5"),
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert json.loads((tmp_path / "metrics.json").read_text())["settings"]["loss"] == ["hinge", {}]
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert ["discriminator/regularizers/r1" in line for line in lines] == [False, True, False]  # due at steps 0 and 3
    assert all("discriminator/regularizers/lecam" in line for line in lines)
    about = lines[0]["about"]
    assert (about["generator_lr"], about["optimizer"]["lr"]) == (1e-3, 1e-5)


def test_interrupt_saves_what_there_is(tmp_path):
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT), "--steps", "1000000", "--out", str(tmp_path)],
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = tmp_path / "log.jsonl"
    deadline = time.monotonic() + 200
    while not (log.exists() and log.stat().st_size) and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.1)
    started = log.exists()  # before that, Ctrl-C is Python's own
    process.send_signal(signal.SIGINT)
    try:
        output, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    assert started, errors
    assert process.returncode == 130, errors
    assert "stopped after" in output
    assert "Traceback" not in errors
    assert {file.name for file in tmp_path.iterdir()} == FILES
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["interrupted"]
    assert metrics["steps"] == len(log.read_text().splitlines()) >= 1


def test_two_processes(tmp_path):
    """With --multi_gpu: `accelerate launch --cpu --num_processes 2` starts one process (accelerate 1.15)."""
    launcher = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0")
    done = run("--steps", 5, "--out", tmp_path, launcher=launcher)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("finished after 5 steps") == 1
    assert {file.name for file in tmp_path.iterdir()} == FILES
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert (metrics["steps"], metrics["processes"]) == (5, 2)
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 5


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--loss", "hing"), 1, "Did you mean 'hinge'"),
        (("--regularizer", "r1:wieght=1"), 1, "did you mean 'weight'"),
        (("--discriminator", "mlp:width=0"), 1, "width=0"),
        (("--discriminator", "patch"), 1, "(N, 3, height, width)"),
        (("--steps", "0"), 1, "steps=0"),
        (("--out", __file__), 1, "File exists"),
        (("--regularizer", "r1:weight"), 2, "option=value"),
        (("--steps", "many"), 2, "invalid int value"),
        (("--batch", "0"), 2, "give a number above 0"),
        (("--seed", "-1"), 2, "give 0 or more"),
        (("--workers", "-1"), 2, "give 0 or more"),
        (("--recipe", "r3gan", "--loss", "hinge"), 2, "leave out --loss"),
        (("--conditional",), 1, "ring has no classes"),
        (("--tracker", "tensorbord"), 1, "installed here"),
        (("--data", "torchvision:Cifar10"), 1, "no data set 'Cifar10'"),
    ],
)
def test_bad_arguments_are_one_line(tmp_path, arguments, code, words):
    done = run("--out", tmp_path / "out", *arguments)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_class_of_ones_own(tmp_path):
    (tmp_path / "my_file.py").write_text(
        "from torch import nn\n\n"
        "class Mine(nn.Sequential):\n"
        "    def __init__(self, *, width=8):\n"
        "        super().__init__(nn.Linear(2, width), nn.SiLU(), nn.Linear(width, 1), nn.Flatten(0))\n"
    )
    done = run("--discriminator", f"{tmp_path}/my_file.py:Mine:width=4", "--steps", 5, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    settings = json.loads((tmp_path / "metrics.json").read_text())["settings"]
    assert "Mine" in settings["discriminator"][0]
