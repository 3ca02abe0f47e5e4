"""An optimizer's step that is taken where a flag says so."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import increment_version


class Stepper:
    """Takes steps that are good, and no others.

    On the CPU the flag is read. On a GPU the host would have to wait for it; there the device decides by itself where
    the optimizer is fused, as it does for a gradient scaler (`found_inf`).

    Args:
        optimizer: a torch optimizer, or Accelerate's around one.

    Attributes:
        asynchronous: whether the device decides where it can; None for on a GPU.
    """

    asynchronous: bool | None = None

    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer
        self._fused = getattr(optimizer, "optimizer", optimizer)  # inside Accelerate's: who reads `found_inf`
        self._has_stepped = False

    def decide(self, finite: Tensor) -> bool | Tensor:
        """Whether to step: a tensor where the device decides, else what the host has read."""
        return finite if self._device_decides(finite.device) else bool(finite)

    def step(self, good: bool | Tensor) -> None:
        """Step where `good`, as `decide` returned it."""
        if good is False:
            return
        if isinstance(good, Tensor):
            self._fused.found_inf = (~good).to(torch.float32)
        try:
            self.optimizer.step()
        finally:
            if isinstance(good, Tensor):
                del self._fused.found_inf
        self._tell()
        self._has_stepped = True

    def _tell(self) -> None:
        """Parameters have changed: a graph that was made before cannot be differentiated (fused optimizers do not say),
        and what autocast has cast of them is of before."""
        groups = self.optimizer.param_groups
        increment_version([parameter for group in groups for parameter in group["params"]])
        torch.clear_autocast_cache()

    def forget(self) -> None:
        """The optimizer's state is another one: the host decides on the next step."""
        self._has_stepped = False

    def _device_decides(self, device: torch.device) -> bool:
        """Not in a first step: it makes the optimizer's state, which a skipped one must not leave behind half made."""
        wanted = device.type == "cuda" if self.asynchronous is None else self.asynchronous
        return wanted and self._has_stepped and all(group.get("fused") for group in self.optimizer.param_groups)
