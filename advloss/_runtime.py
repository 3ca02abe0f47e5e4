"""Where a step runs: alone, or under Accelerate (precision, accumulation, ranks)."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


class Runtime:
    """One process, full precision, a step at every call."""

    rank = 0
    world = 1
    sync = True
    accumulation_steps = 1
    half = False

    def autocast(self, device: torch.device, enabled: bool = True) -> AbstractContextManager[Any]:
        """The precision of a forward on `device`: the script's own, or full where not `enabled`."""
        return nullcontext() if enabled else torch.autocast(device.type, enabled=False)

    def scale(self, loss: Tensor) -> Tensor:
        """`loss` times the factor that keeps half-precision gradients from underflow."""
        return loss

    def mean(self, flat: Tensor) -> Tensor:
        """`flat` averaged over ranks."""
        return flat

    def gather(self, rows: Tensor) -> Tensor:
        """`rows` of all ranks, in their order."""
        return rows


class Accelerated(Runtime):
    """What an `accelerate.Accelerator` says. Gradients are averaged by its `reduce`, once a step, in one call.

    No DistributedDataParallel wraps the discriminator: a step has several forwards, double backwards and lazy
    terms, which its hooks were not made for, and one flat reduction makes every rank see the same values.
    """

    def __init__(self, accelerator: Any) -> None:
        self._accelerator = accelerator

    @property
    def rank(self) -> int:  # type: ignore[override]
        return int(self._accelerator.process_index)

    @property
    def world(self) -> int:  # type: ignore[override]
        return int(self._accelerator.num_processes)

    @property
    def sync(self) -> bool:  # type: ignore[override]
        return bool(self._accelerator.sync_gradients)

    @property
    def accumulation_steps(self) -> int:  # type: ignore[override]
        return int(self._accelerator.gradient_accumulation_steps)

    @property
    def half(self) -> bool:  # type: ignore[override]
        return bool(self._accelerator.mixed_precision == "fp16")

    def autocast(self, device: torch.device, enabled: bool = True) -> AbstractContextManager[Any]:
        return self._accelerator.autocast() if enabled else super().autocast(device, enabled)

    def scale(self, loss: Tensor) -> Tensor:
        scaler = self._accelerator.scaler
        return loss if scaler is None else scaler.scale(loss)

    def mean(self, flat: Tensor) -> Tensor:
        return self._accelerator.reduce(flat, reduction="mean") if self.world > 1 else flat

    def gather(self, rows: Tensor) -> Tensor:
        return self._accelerator.gather(rows) if self.world > 1 else rows
