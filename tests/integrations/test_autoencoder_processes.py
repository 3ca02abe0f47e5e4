"""Two processes: one autoencoder, one adversary, one lambda."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gloo
import pytest
import torch
from autoencoder_tools import alike

SCRIPT = Path(__file__).with_name("autoencoder_two_processes.py")
SECONDS = 240  # 20 where nothing else runs


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("two")
    gloo.run(SCRIPT, out, seconds=SECONDS).check()
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
