"""Two gloo processes train as one with the whole batch, and stay bitwise alike whatever happens to one of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gloo
import pytest
import torch
from core_tools import assert_same
from torch import Tensor

import advloss

SCRIPT = Path(__file__).with_name("two_processes.py")
SECONDS = 120


class Ran:
    """What the processes wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def tensors(self, name: str, rank: int = 0, world: int = 2) -> dict[str, Tensor]:
        return advloss.load_state(self.folder / f"{world}-{rank}-{name}")

    def seen(self, rank: int = 0, world: int = 2) -> dict[str, Any]:
        return json.loads((self.folder / f"{world}-{rank}.json").read_text())


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("two")
    gloo.run(SCRIPT, folder, worlds=(2, 1), seconds=SECONDS).check()
    return Ran(folder)


def test_there_were_two(ran: Ran) -> None:
    assert [ran.seen(0)["world"], ran.seen(1)["world"], ran.seen(0, 1)["world"]] == [2, 2, 1]


@pytest.mark.parametrize(
    "when", ["start", "trained", "batch norm", "well again", "loaded", "loaded by all", "resumed", "warm"]
)
def test_ranks_are_bitwise_alike(ran: Ran, when: str) -> None:
    assert_same(ran.tensors(when, 0), ran.tensors(when, 1))


def test_all_start_from_the_main_process(ran: Ran) -> None:
    assert_same(ran.tensors("start", 1), ran.tensors("start", 0, world=1))
    assert ran.seen(0)["seed"] == ran.seen(1)["seed"]


def test_two_equal_one_with_the_whole_batch(ran: Ran) -> None:
    """Weights, spectral norm's vectors and LeCam's averages, after steps with lazy R1, R2 and clipping."""
    two, one = ran.tensors("trained"), ran.tensors("trained", world=1)
    assert any("ema_real" in name for name in two)
    for name in one:
        assert torch.allclose(two[name], one[name], rtol=0, atol=1e-12), name
    start = ran.tensors("start", world=1)
    assert all(
        not torch.equal(one[name], start[name]) for name in one if name.endswith(("bias", "original", "ema_real"))
    )
    assert ran.seen(0)["norms"] == ran.seen(1)["norms"]
    assert ran.seen(0)["norms"] == pytest.approx(ran.seen(0, 1)["norms"], rel=1e-12)


def test_random_numbers_differ_between_ranks(ran: Ran) -> None:
    """The same noise on all ranks would be a smaller batch of noise."""
    assert ran.seen(0)["noise"] != ran.seen(1)["noise"]
    assert ran.seen(0)["noise"] == ran.seen(0, 1)["noise"]


@pytest.mark.parametrize("rank", [0, 1])
def test_nan_on_one_rank_skips_the_step_on_both(ran: Ran, rank: int) -> None:
    seen = ran.seen(rank)
    assert seen["skipped"]
    assert seen["unchanged"]
    assert seen["skipped samples"]
    assert seen["unchanged samples"]
    assert seen["well again"]


def test_save_state_on_the_main_process_alone_does_not_hang(ran: Ran) -> None:
    assert ran.seen(1)["files"] == ["adversary.safetensors", "adversary_1.safetensors", "adversary_2.safetensors"]
    assert_same(ran.tensors("loaded"), ran.tensors("well again"))


def test_every_rank_loads_the_one_file(ran: Ran) -> None:
    assert_same(ran.tensors("loaded by all", 1), ran.tensors("loaded"))
    assert not torch.equal(*(ran.tensors(n)["LeCam.ema_real"] for n in ("resumed", "loaded")))


def test_a_loss_alone_is_refused_where_nobody_would_average_it(ran: Ran) -> None:
    assert "discriminator_step" in ran.seen(1)["loss alone"]


@pytest.mark.parametrize("rank", [0, 1])
def test_processes_that_took_different_steps_are_refused(ran: Ran, rank: int) -> None:
    assert "have taken different steps" in ran.seen(rank)["uneven"]
