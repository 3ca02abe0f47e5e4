"""The distillation example as its users run it: in a process of its own, with tiny settings."""

from __future__ import annotations

import json
import math
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState, GradientState
from diffusers import UNet2DModel
from matplotlib import image as picture_file

import advloss
from advloss import _registry

EXAMPLE = Path(__file__).parents[2] / "examples" / "distill_turbo.py"
TINY = ["--cpu", "--teacher-iterations", "4", "--trajectories", "100", "--start-iterations", "3", "--samples", "100"]
PLAIN = """
import sys
import torch
from diffusers import LCMScheduler, UNet2DModel

unet = UNet2DModel.from_pretrained(sys.argv[1] + "/unet")
scheduler = LCMScheduler.from_pretrained(sys.argv[1] + "/scheduler")
labels = torch.arange(10)
for steps in (1, 4):
    samples = torch.randn(10, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    scheduler.set_timesteps(steps)
    for t in scheduler.timesteps:
        with torch.no_grad():
            output = unet(samples, t, class_labels=labels).sample
        samples = scheduler.step(output, t, samples).prev_sample
    assert samples.shape == (10, 1, 8, 8) and samples.isfinite().all() and samples.abs().max() <= 1.01
    assert samples.std() > 0.01
    print(*scheduler.timesteps.tolist())
assert not any(name.startswith("advloss") for name in sys.modules)
"""


def environment() -> dict[str, str]:
    alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    return {**alone, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}


def start(out: Path, *options: str, launcher: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    command = [sys.executable, *launcher, str(EXAMPLE), "--out", str(out), *TINY, *options]
    pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, env=environment(), text=True, **pipe)


def example(out: Path, *options: str, launcher: tuple[str, ...] = ()) -> str:
    """Its output; it has to succeed."""
    process = start(out, *options, launcher=launcher)
    try:
        output, errors = process.communicate(timeout=270)
    finally:
        process.kill()
    assert process.returncode == 0, output[-2000:] + errors[-3000:]
    return output


def log(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("turbo") / "a new folder" / "run"
    example(out, "--iterations", "4")
    return out


@pytest.fixture
def teacher_only(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished / "teacher", tmp_path / "teacher")
    return tmp_path


@pytest.fixture
def run_here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., dict[str, Any]]]:
    """Runs the example in this process, as a script unless another name is given."""
    registered = dict(_registry._script)

    def run(*options: str, name: str = "__main__") -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["distill_turbo.py", *options])
        return runpy.run_path(str(EXAMPLE), run_name=name)

    yield run
    torch.set_flush_denormal(False)
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()
    _registry._script.clear()
    _registry._script.update(registered)


def check_results(out: Path) -> dict[str, Any]:
    metrics = json.loads((out / "metrics.json").read_text())
    rows = [f"student, {steps} step{'s' * (steps > 1)}" for steps in (1, 2, 4)]
    for row in ("held-out digits", "teacher, 50 steps", "teacher, 1 step", *rows):
        assert {"features_held_out", "pixels_all", "accuracy", "memorized", "close"} <= metrics[row].keys()
        assert all(math.isfinite(value) for value in metrics[row].values())
    assert metrics["held-out digits"]["accuracy"] > 0.97
    drawn = picture_file.imread(out / "samples.png")
    assert drawn.shape[1] > drawn.shape[0] > 100
    assert drawn[..., :3].std() > 0.05
    return metrics


def test_a_run_leaves_metrics_a_picture_and_a_log(finished: Path) -> None:
    check_results(finished)
    lines = log(finished)
    assert [line["iteration"] for line in lines] == [1, 2, 3, 4]
    assert all(math.isfinite(value) for line in lines for name, value in line.items() if name != "about")
    assert all({"generator_loss", "discriminator/loss"} <= line.keys() for line in lines)
    assert not list(finished.glob("**/.*"))


def test_plain_diffusers_samples_the_student(finished: Path) -> None:
    command = [sys.executable, "-c", PLAIN, str(finished / "student")]
    done = subprocess.run(command, env=environment(), cwd="/", capture_output=True, text=True, timeout=270)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines() == ["999", "999 749 499 249"]


def test_the_student_is_the_average_of_the_last_checkpoint_on_the_way_back_to_the_start(finished: Path) -> None:
    (checkpoint,) = (finished / "checkpoints").iterdir()
    assert checkpoint.name == "step-00000004"
    average = advloss.load_state(checkpoint / "state.safetensors")["parts"]["ema"]["shadow_params"]
    student, start, teacher = (
        UNet2DModel.from_pretrained(finished / name).parameters() for name in ("student/unet", "start", "teacher")
    )
    for mine, own, there, teachers in zip(student, average, start, teacher, strict=True):
        torch.testing.assert_close(mine, 0.65 * own + 0.35 * there)
        assert not torch.equal(mine, teachers)


def test_the_papers_combination_runs(teacher_only: Path) -> None:
    example(teacher_only, "--method", "add", "--iterations", "3")
    assert check_results(teacher_only)["run"]["method"] == "add"
    lines = log(teacher_only)
    assert [line["iteration"] for line in lines] == [1, 2, 3]
    assert all(line["distillation_loss"] > 0 for line in lines)


def test_two_processes(tmp_path: Path) -> None:
    launcher = ("-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--main_process_port", "0")
    output = example(tmp_path, "--iterations", "3", launcher=launcher)
    assert output.count("everything is in") == 1
    check_results(tmp_path)
    assert [line["iteration"] for line in log(tmp_path)] == [1, 2, 3]
    (checkpoint,) = (tmp_path / "checkpoints").iterdir()
    assert {"process_0.safetensors", "process_1.safetensors"} <= {file.name for file in checkpoint.iterdir()}


def test_an_interrupted_run_goes_on(finished: Path, teacher_only: Path) -> None:
    """It also takes the teacher that is there, and leaves it alone."""
    out = teacher_only
    process = start(out, "--iterations", "100000", "--save-every", "2")
    try:
        deadline = time.monotonic() + 120
        while not list(out.glob("checkpoints/step-*")) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 130, errors[-3000:]
    assert "Traceback" not in errors
    assert "teacher:" not in output
    message = re.search(r"stopped after iteration (\d+); go on with --resume", output)
    assert message is not None, output[-2000:]
    stopped = int(message[1])
    (checkpoint,) = (out / "checkpoints").glob("step-*")
    assert checkpoint.name == f"step-{stopped:08d}"
    assert not (out / "student").exists()

    example(out, "--resume", "--iterations", str(stopped + 2))
    check_results(out)
    done = [line["iteration"] for line in log(out)]
    assert done == list(range(1, stopped + 3))
    (checkpoint,) = (out / "checkpoints").iterdir()
    assert checkpoint.name == f"step-{stopped + 2:08d}"
    for file in (finished / "teacher").iterdir():
        assert (out / "teacher" / file.name).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--iterations", "0"], "error: --iterations must be at least 1"),
        (["--teacher-iterations", "-3"], "error: --teacher-iterations must be at least 1"),
        (["--samples", "0"], "error: --samples must be at least 1"),
        (["--samples", "25"], "error: --samples must be a multiple of 10"),
        (["--trajectories", "5"], "error: --trajectories must be a multiple of 10"),
        (["--save-every", "0"], "error: --save-every must be at least 1"),
        (["--lr", "nan"], "error: --lr must be a number above 0"),
        (["--towards-start", "1.5"], "error: --towards-start must be from 0 to 1"),
        (["--towards-start", "0.3", "--method", "add"], "0 with --method add"),
        (["--method", "magic"], "invalid choice: 'magic'"),
        (["--lr", "fast"], "invalid float value: 'fast'"),
        (["--unknown"], "unrecognized arguments: --unknown"),
    ],
)
def test_wrong_options_are_told_in_a_line(
    run_here: Callable[..., Any], options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run_here(*options)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_settings_that_are_cut_short_are_told_in_a_line(run_here: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"seed": 0, "teach')
    with pytest.raises(SystemExit, match=r"settings\.json cannot be read .* delete"):
        run_here("--out", str(tmp_path), *TINY)


def test_a_folder_is_for_one_seed(run_here: Callable[..., Any], finished: Path) -> None:
    with pytest.raises(SystemExit, match=r"was begun with --seed 0; give the same, or another folder as --out"):
        run_here("--out", str(finished), *TINY, "--seed", "1")


def test_going_on_without_a_checkpoint_is_told_in_a_line(run_here: Callable[..., Any], teacher_only: Path) -> None:
    with pytest.raises(SystemExit, match=r"^distill_turbo.py: there is no checkpoint in .*; start without resuming$"):
        run_here("--out", str(teacher_only), *TINY, "--resume")
    assert not (teacher_only / "log.jsonl").exists()


def test_the_papers_weight_is_the_methods_default(run_here: Callable[..., Any]) -> None:
    for options, weight in (
        ([], 0),
        (["--method", "add"], 2.5),
        (["--method", "add", "--distillation-weight", "0"], 0),
    ):
        parsed = run_here(*options, name="imported")["parse"]()
        assert parsed.distillation_weight == weight
        assert not parsed.resume
