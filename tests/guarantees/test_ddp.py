"""Guarantee 2: two gloo ranks train as one process with the whole batch, and stay bitwise alike."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import gloo
import pytest
import ranks
import torch
from core_tools import assert_same

import advloss

SECONDS = 900  # for all cases together on a busy machine; `ranks.BOUND` is that of each


class Ran:
    """What the processes wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @functools.cached_property
    def tensors(self) -> dict[tuple[int, int], Any]:
        return {(w, r): advloss.load_state(self.folder / f"{w}-{r}") for w, r in ((2, 0), (2, 1), (1, 0))}

    def faults(self, rank: int) -> dict[str, Any]:
        return json.loads((self.folder / f"2-{rank}.json").read_text())


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("ranks")
    gloo.run(ranks.__file__, folder, worlds=(2, 1), seconds=SECONDS).check()
    return Ran(folder)


@pytest.mark.timeout(SECONDS + 100)
@pytest.mark.parametrize("combination", ranks.cases(), ids=str)
def test_two_ranks_equal_one_with_the_whole_batch(ran: Ran, combination: Any) -> None:
    one, two, other = (ran.tensors[place][str(combination)] for place in ((1, 0), (2, 0), (2, 1)))
    assert_same(two, other)
    if not combination.batch_coupled:  # those see their own rank's batch: see docs/guarantees.md
        for name in one:
            size = max(1.0, float(one[name].abs().max()), float(one[ranks.STEP_SIZE]))  # what rounding is relative to
            assert torch.allclose(two[name], one[name], rtol=0, atol=1e-12 * size), name


@pytest.mark.timeout(SECONDS + 100)
def test_ranks_are_bitwise_alike_after_fifty_steps(ran: Ran) -> None:
    """With batch norm, moving averages and other random numbers on each rank."""
    assert_same(ran.tensors[2, 0]["long"], ran.tensors[2, 1]["long"])


@pytest.mark.timeout(SECONDS + 100)
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("place", ["real", "fake", "logits", "gradient", "generator"])
def test_a_fault_on_one_rank_is_skipped_on_both(ran: Ran, place: str, rank: int) -> None:
    assert ran.faults(rank)[place] == {"skipped": True, "unchanged": True, "well again": True}
