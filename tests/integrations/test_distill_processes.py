"""Two processes: one student, two shares of the data."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gloo
import pytest
import torch
from distill_tools import differences

SCRIPT = Path(__file__).with_name("distill_two_processes.py")
SECONDS = 240  # 20 where nothing else runs


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("two")
    gloo.run(SCRIPT, out, seconds=SECONDS).check()
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
