"""Two processes: one student, two shares of the data."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from distill_tools import differences

SCRIPT = Path(__file__).with_name("distill_two_processes.py")
SECONDS = 240  # 20 where nothing else runs


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("two")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(out)],
            env={**os.environ, **common, "ACCELERATE_USE_CPU": "true", "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [process.communicate(timeout=SECONDS)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, output in zip(processes, outputs):
        assert process.returncode == 0, output[-3000:]
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("when", ["started", "resumed"])
def test_both_have_the_same_weights(ranks: list[dict[str, Any]], when: str) -> None:
    one, other = (rank[when] for rank in ranks)
    for part in ("student", "average", "discriminator", "teacher"):
        assert not differences(one[part], other[part]), part


def test_each_has_its_own_share_of_the_data(ranks: list[dict[str, Any]]) -> None:
    one, other = (rank["started"] for rank in ranks)
    assert differences(one["labels"], other["labels"])
    assert differences(one["simulation"]["noisy"], other["simulation"]["noisy"])


def test_resuming_goes_on_in_both(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["started"]["iteration"] == 2
        assert rank["resumed"]["iteration"] == 4
        assert differences(rank["started"]["student"], rank["resumed"]["student"])
        assert not differences(rank["started"]["teacher"], rank["resumed"]["teacher"])
        assert not differences(rank["started"]["simulation"], rank["resumed"]["begun with"])  # its own
    one, other = (rank["resumed"] for rank in ranks)
    assert differences(one["simulation"]["noisy"], other["simulation"]["noisy"])
    assert differences(one["labels"][-1], other["labels"][-1])


def test_the_main_process_measures_alone(ranks: list[dict[str, Any]]) -> None:
    assert ranks[0]["figures"]["close"] == pytest.approx(0.1, abs=0.005)
    assert "figures" not in ranks[1]
