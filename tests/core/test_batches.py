"""Positions in data: whatever a loader draws its order from, a resumed pass goes on where it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import DataLoaderConfiguration
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from advloss import EndlessBatches

Make = Callable[..., Any]
DATA = torch.arange(7)


def own() -> torch.Generator:
    return torch.Generator().manual_seed(3)


LOADERS: dict[str, Callable[[], DataLoader]] = {
    "global": lambda: DataLoader(DATA, 2, shuffle=True),
    "the loader's": lambda: DataLoader(DATA, 2, shuffle=True, generator=own()),
    "the sampler's": lambda: DataLoader(DATA, 2, sampler=RandomSampler(DATA, generator=own())),
    "a subset's": lambda: DataLoader(DATA, 2, sampler=SubsetRandomSampler(range(5), generator=own())),
    "weighted": lambda: DataLoader(DATA, 2, sampler=WeightedRandomSampler([1.0] * 7, 7, generator=own())),
    "the batch sampler's": lambda: DataLoader(
        DATA, batch_sampler=BatchSampler(RandomSampler(DATA, generator=own()), 2, drop_last=False)
    ),
    "torch's distributed one": lambda: DataLoader(DATA, 2, sampler=DistributedSampler(DATA, 2, 1, shuffle=True)),
}


def draw(batches: Any, count: int) -> list[list[int]]:
    return [next(batches).tolist() for _ in range(count)]


@pytest.mark.parametrize("prepared", ["", "plain", "seedable"])
@pytest.mark.parametrize("drawn_from", LOADERS)
@pytest.mark.parametrize("read", [1, 4, 5, 10])
def test_a_resumed_pass_goes_on(read: int, drawn_from: str, prepared: str, make_accelerator: Make) -> None:
    """Also in the middle of the second and third pass, whose order follows from what the first has drawn."""

    def make(seed: int) -> EndlessBatches[Any]:
        torch.manual_seed(seed)
        loader: Any = LOADERS[drawn_from]()
        if prepared:
            options = DataLoaderConfiguration(use_seedable_sampler=prepared == "seedable")
            loader = make_accelerator(dataloader_config=options).prepare(loader)
        return EndlessBatches(loader)

    straight = make(9)
    draw(straight, read)
    state, random = straight.state_dict(), torch.get_rng_state()
    expected = draw(straight, 9)
    resumed = make(8)
    draw(resumed, 2)  # somewhere else
    resumed.load_state_dict(state)
    torch.set_rng_state(random)  # as a training's state does
    assert draw(resumed, 9) == expected


def test_a_generator_that_the_script_uses_too_goes_on() -> None:
    def make() -> tuple[EndlessBatches[Any], torch.Generator]:
        generator = own()
        return EndlessBatches(DataLoader(DATA, 2, shuffle=True, generator=generator)), generator

    def use(batches: EndlessBatches[Any], generator: torch.Generator, count: int) -> list[Any]:
        return [(next(batches).tolist(), float(torch.rand((), generator=generator))) for _ in range(count)]

    straight, shared = make()
    use(straight, shared, 6)
    state = straight.state_dict()
    expected = use(straight, shared, 7)
    resumed, its = make()
    resumed.load_state_dict(state)
    assert use(resumed, its, 7) == expected


def test_torchs_distributed_sampler_shuffles_anew_in_each_pass() -> None:
    batches = EndlessBatches(LOADERS["torch's distributed one"]())
    first, second = draw(batches, 2), draw(batches, 2)
    assert first != second
