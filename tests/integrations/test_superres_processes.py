"""Two processes: one network, one adversary, through both phases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gloo
import pytest
import torch
from superres_tools import alike, both_phases, training, weights

SCRIPT = Path(__file__).with_name("superres_two_processes.py")
SECONDS = 240  # 20 where nothing else runs


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("two")
    gloo.run(SCRIPT, out, seconds=SECONDS).check()
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
