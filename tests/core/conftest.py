"""Fixtures of the core's tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

from advloss import _registry


@pytest.fixture(autouse=True)
def same_start() -> None:
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def clean_catalogue() -> Iterator[None]:
    """What a test registers is gone after it."""
    before = dict(_registry._script)
    yield
    _registry._script.clear()
    _registry._script.update(before)


@pytest.fixture
def make_accelerator() -> Iterator[Callable[..., Any]]:
    """Accelerators on the CPU; Accelerate's process-wide state is reset around them."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, GradientState

    def reset() -> None:
        AcceleratorState._reset_state(reset_partial_state=True)
        GradientState._reset_state()

    def make(**options: Any) -> Accelerator:
        reset()
        return Accelerator(cpu=True, **options)

    yield make
    reset()
