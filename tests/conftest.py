"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def same_start() -> None:
    torch.manual_seed(0)


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
