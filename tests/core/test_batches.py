"""Positions in data: whatever a loader draws its order from, a resumed pass goes on where it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accelerate import DataLoaderConfiguration
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

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
}


def draw(batches: Any, count: int) -> list[list[int]]:
    return [next(batches).tolist() for _ in range(count)]


@pytest.mark.parametrize("prepared", ["", "plain", "seedable"])
@pytest.mark.parametrize("drawn_from", LOADERS)
@pytest.mark.parametrize("read", [1, 4, 5, 10])
def test_a_resumed_pass_goes_on(read: int, drawn_from: str, prepared: str, make_accelerator: Make) -> None:
    """Also in the middle of the second and third pass, whose order follows from what the first has drawn."""

    def make() -> EndlessBatches[Any]:
        torch.manual_seed(9)
        loader: Any = LOADERS[drawn_from]()
        if prepared:
            options = DataLoaderConfiguration(use_seedable_sampler=prepared == "seedable", data_seed=5)
            loader = make_accelerator(dataloader_config=options).prepare(loader)
        return EndlessBatches(loader)

    straight = make()
    draw(straight, read)
    state, random = straight.state_dict(), torch.get_rng_state()
    expected = draw(straight, 9)
    resumed = make()
    draw(resumed, 2)  # somewhere else
    resumed.load_state_dict(state)
    torch.set_rng_state(random)  # as a training's state does
    assert draw(resumed, 9) == expected
