"""Two processes distil a pipeline: one student, two shares of the data, and a teacher that is not prepared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gloo
import pytest
import torch
from distill_tools import differences

SCRIPT = Path(__file__).with_name("pipeline_two_processes.py")
SECONDS = 280


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("two")
    gloo.run(SCRIPT, out, seconds=SECONDS).check()
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("kind", ["adapter", "whole"])
def test_both_train_one_student(ranks: list[dict[str, Any]], kind: str) -> None:
    one, other = (rank[kind] for rank in ranks)
    assert not differences(one["student"], other["student"])
    assert not differences(one["discriminator"], other["discriminator"])
    assert differences(one["inputs"], other["inputs"])
    changed = differences(one["before"], one["student"])
    assert changed
    assert kind == "whole" or all("lora_" in place for place in changed)
    assert all(place.startswith("heads.") for place in one["discriminator"])
