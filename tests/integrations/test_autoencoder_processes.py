"""Two processes: one autoencoder, one adversary, one lambda."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from autoencoder_tools import alike

SCRIPT = Path(__file__).with_name("autoencoder_two_processes.py")
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


def test_rae_and_seed_voken_all_is_equal_on_all_ranks(ranks: list[dict[str, Any]]) -> None:
    """The discriminator's gradients are not reduced in RAE, LeCam's averages not in SEED-Voken."""
    one, other = ranks
    for part in ("model", "average", "discriminator", "lecam", "adaptive"):
        assert alike(one[part], other[part]), part
    assert one["pixel"] != other["pixel"]  # each has its own share of the data
    assert one["lecam"]["ema_real"] != 0


def test_lambda_and_gradient_are_those_of_the_whole_batch(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["shared"] == pytest.approx(rank["alone"], rel=1e-4)
        torch.testing.assert_close(rank["gradient"], rank["gradient of all"], rtol=1e-3, atol=1e-5)
