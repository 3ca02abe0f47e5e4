"""Guarantee 6: a signal to any one process, and all of them save the same step and exit as the convention says."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import gloo
import pytest
import torch

import advloss
from advloss import Checkpoints, interruptible

SCRIPT = Path(__file__).with_name("preempted.py")
SECONDS = 120  # 8 where nothing else runs
STEP = 5
GAN = Path(__file__).parents[2] / "examples" / "train_gan.py"


@pytest.mark.parametrize(
    ("rank", "number"),
    [
        (0, signal.SIGTERM),
        pytest.param(1, signal.SIGTERM, marks=pytest.mark.slow),  # in the short form under torchrun
        pytest.param(0, signal.SIGINT, marks=pytest.mark.slow),
        pytest.param(1, signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_one_stops_all_after_the_same_step(rank: int, number: int, tmp_path: Path) -> None:
    ended = gloo.run(SCRIPT, tmp_path, rank, number, STEP, seconds=SECONDS)
    assert ended.statuses == [128 + number] * 2, ended.said
    assert [path.name for path in tmp_path.iterdir()] == [f"step-{STEP:08d}"]
    newest = Checkpoints(tmp_path).newest()
    states = [advloss.load_state(newest / f"process_{r}.safetensors") for r in range(2)]
    assert [state["counters"]["step"] for state in states] == [STEP] * 2
    assert [state["parts"]["batches"]["read"] for state in states] == [2 * STEP] * 2
    assert not torch.equal(*(state["parts"]["random"]["torch"] for state in states))
    assert advloss.load_state(newest / "state.safetensors")["parts"]["adversary"]["counters"]["step"] == STEP


@pytest.mark.parametrize("rank", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_a_full_disk_on_one_leaves_the_old_checkpoint(rank: int, tmp_path: Path) -> None:
    """Nobody waits for the other, and nobody takes half of a checkpoint for one."""
    ended = gloo.run(SCRIPT, tmp_path, rank, 0, STEP, seconds=SECONDS)
    assert 0 not in ended.statuses
    assert "could not be written" in ended.said
    assert "another process could not write the checkpoint" in ended.said
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000004"]
    Checkpoints(tmp_path).newest()


@pytest.mark.parametrize("whom", ["one rank", pytest.param("launcher", marks=pytest.mark.slow)])
def test_preempted_under_torchrun_and_resumed(whom: str, tmp_path: Path) -> None:
    """SIGTERM from outside, to the second rank's own id, or to torchrun, which hands it on."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(GAN)]
    command = [*launcher, "--out", str(tmp_path), "--steps"]
    process = subprocess.Popen(
        [*command, "100000"], env=gloo.ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        log = tmp_path / "log.jsonl"
        wait_until(lambda: (log.exists() and log.read_text().count("\n") >= 3) or process.poll() is not None)
        os.kill(second_rank(process.pid) if whom == "one rank" else process.pid, signal.SIGTERM)
        said = process.communicate(timeout=SECONDS)[0]
    finally:
        process.kill()
    assert process.returncode != 0, said
    newest = Checkpoints(tmp_path / "checkpoints").newest()
    stopped = int(newest.name[5:])
    assert {path.name for path in newest.glob("process_*")} == {"process_0.safetensors", "process_1.safetensors"}
    assert log.read_text().count("\n") == stopped
    if whom == "one rank":
        assert "exitcode  : 143" in said or "exitcode: 143" in said, said
    done = subprocess.run(
        [*command, str(stopped + 2), "--resume"], env=gloo.ENVIRONMENT, capture_output=True, text=True, timeout=SECONDS
    )
    assert done.returncode == 0, done.stderr
    assert f"finished after {stopped + 2} steps" in done.stdout
    assert log.read_text().count("\n") == stopped + 2


def second_rank(launcher: int) -> int:
    """The process id of the child of torchrun whose RANK is 1."""
    for path in Path("/proc").glob("[0-9]*"):
        try:
            parent = int(path.joinpath("stat").read_text().rpartition(")")[2].split()[1])
            if parent == launcher and b"\0RANK=1\0" in b"\0" + path.joinpath("environ").read_bytes():
                return int(path.name)
        except (OSError, ValueError):
            continue
    raise AssertionError("torchrun has no second rank")


def wait_until(condition: Any) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.05)


# In one process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_is_a_question(number: int, status: int) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    with interruptible() as asked_to_stop:
        assert not asked_to_stop()
        assert asked_to_stop.exit_status == 0
        signal.raise_signal(number)
        assert asked_to_stop()
        assert asked_to_stop.exit_status == status
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_a_second_sigterm_does_not_end_the_saving() -> None:
    with interruptible() as asked_to_stop:
        for _ in range(3):
            signal.raise_signal(signal.SIGTERM)
        assert asked_to_stop()
        assert asked_to_stop.exit_status == 143


def test_a_second_interrupt_is_not_held_back() -> None:
    with pytest.raises(KeyboardInterrupt), interruptible():  # noqa: PT012
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)


def test_one_process_does_not_communicate() -> None:
    class Alone:
        num_processes = 1

    with interruptible(Alone()) as asked_to_stop:
        assert not asked_to_stop()


def test_processes_leave_together_unless_one_raises() -> None:
    """Else one ends while gloo's threads still hold its tensors, and its exit status is that of an abort."""
    waited = []

    class Two:
        num_processes = 2

        def wait_for_everyone(self) -> None:
            waited.append(signal.getsignal(signal.SIGTERM))

    before = signal.getsignal(signal.SIGTERM)
    with interruptible(Two()):
        assert not waited
    assert waited == [before]  # a signal is no question any more
    with pytest.raises(ValueError, match="one of them"), interruptible(Two()):
        raise ValueError("one of them")
    assert len(waited) == 1


def test_another_thread_is_left_alone() -> None:
    answers = []

    def work() -> None:
        with interruptible() as asked_to_stop:
            answers.append(asked_to_stop())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert answers == [False]
