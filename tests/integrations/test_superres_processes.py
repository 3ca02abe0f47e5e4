"""Two processes: one network, one adversary, through both phases."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from superres_tools import alike, both_phases, training, weights

SCRIPT = Path(__file__).with_name("superres_two_processes.py")
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


def test_all_is_equal_on_both_ranks(ranks: list[dict[str, Any]]) -> None:
    one, other = ranks
    for part in ("model", "ends", "discriminator", "resumed"):
        assert alike(one[part], other[part]), part
    assert alike(one["resumed"], one["model"])
    assert one["step"] == other["step"] == 5
    assert one["pixel"] != other["pixel"]  # each has its own share of the data


def test_it_is_the_training_of_the_whole_batch(
    ranks: list[dict[str, Any]], make_accelerator: Callable[..., Any]
) -> None:
    whole = training(make_accelerator(), *both_phases(0, 1))
    whole.run()
    for name, value in weights(whole.model).items():
        torch.testing.assert_close(value, ranks[0]["model"][name], rtol=1e-3, atol=1e-4, msg=name)
