"""Two processes share one student's weights (FSDP2): it learns what an unshared one learns, and is saved whole."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gloo
import pytest
import torch
from distill_tools import differences
from pipeline_tools import tiny_family

from advloss import OptionError
from advloss_distill import Consistency, shard_teacher
from advloss_distill._sharded import is_sharded

SCRIPT = Path(__file__).with_name("sharded_two_processes.py")
SECONDS = 400


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("sharded")
    gloo.run(SCRIPT, out, seconds=SECONDS).check()
    return [torch.load(out / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("kind", ["whole", "adapter", "accumulated", "classes"])
def test_sharded_or_not_the_student_learns_the_same(ranks: list[dict[str, Any]], kind: str) -> None:
    one, other = (rank[f"fsdp {kind}"] for rank in ranks)
    assert not differences(one["student"], other["student"])
    assert not differences(one["discriminator"], other["discriminator"])
    reference = ranks[0][f"ddp {kind}"]
    assert reference["sharded"] == 0
    assert one["sharded"] == 1
    assert one["teacher"] == 0
    assert max(one["held"], other["held"]) < 0.7 * reference["held"]
    assert one["checkpoint"] == other["checkpoint"] == reference["checkpoint"]  # it is written whole
    for part in ("student", "discriminator"):
        torch.testing.assert_close(one[part], reference[part], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("kind", ["whole", "adapter"])
def test_a_sharded_student_resumes_bit_by_bit(ranks: list[dict[str, Any]], kind: str) -> None:
    for rank in ranks:
        one, other = rank[f"fsdp {kind}"], rank[f"resumed {kind}"]
        assert one["held"] == other["held"]
        assert not differences(one["student"], other["student"])
        assert not differences(one["discriminator"], other["discriminator"])


@pytest.mark.parametrize(("kind", "whole"), [("teacher", "whole"), ("classes teacher", "classes")])
@pytest.mark.parametrize("way", ["ddp", "fsdp"])
def test_with_a_sharded_teacher_a_student_learns_the_same(
    ranks: list[dict[str, Any]], way: str, kind: str, whole: str
) -> None:
    one, other, reference = ranks[0][f"{way} {kind}"], ranks[1][f"{way} {kind}"], ranks[0][f"ddp {whole}"]
    assert one["teacher"] == other["teacher"] == 1
    assert one["digest"] == other["digest"] == reference["digest"]
    assert one["sharded"] == (way == "fsdp")
    assert not differences(one["student"], other["student"])
    for part in ("student", "discriminator"):
        torch.testing.assert_close(one[part], reference[part], rtol=1e-3, atol=1e-5)


def test_a_teacher_is_sharded_over_processes() -> None:
    pipeline, family = tiny_family("sana")
    with pytest.raises(OptionError, match="there is one: use accelerate launch"):
        shard_teacher(family, pipeline.transformer.requires_grad_(False))
    with pytest.raises(OptionError, match="the teacher is not frozen"):
        shard_teacher(family, pipeline.transformer.requires_grad_(True))


def test_in_bfloat16_with_checkpointing_a_sharded_student_learns_about_the_same(ranks: list[dict[str, Any]]) -> None:
    one, other, reference = (ranks[0]["fsdp bfloat16"], ranks[1]["fsdp bfloat16"], ranks[0]["ddp bfloat16"])
    assert not differences(one["student"], other["student"])
    assert one["sharded"] == 1
    for part in ("student", "discriminator"):
        assert all(value.dtype == torch.float32 for value in one[part].values() if value.is_floating_point())
        torch.testing.assert_close(one[part], reference[part], rtol=5e-2, atol=1e-3)
    assert differences(one["student"], ranks[0]["fsdp whole"]["student"])


def test_a_term_that_asks_the_average_is_refused_before_training(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert "the averaged student cannot be asked while FSDP2 spreads it" in rank["refused"]
    assert Consistency.needs_average


def test_the_first_version_of_fsdp_is_refused() -> None:
    accelerator = SimpleNamespace(distributed_type="DistributedType.FSDP", is_fsdp2=False)
    with pytest.raises(OptionError, match="set fsdp_version: 2"):
        is_sharded(accelerator)
    assert not is_sharded(SimpleNamespace(distributed_type="DistributedType.MULTI_CPU"))
