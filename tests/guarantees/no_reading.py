"""A mode in which reading a value is a failure."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode


class NoReading(TorchDispatchMode):
    """Fails when a value goes from the device to the host: ``.item()``, ``bool(tensor)``, ``.cpu()`` of a GPU tensor."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        reads = (
            torch.ops.aten._local_scalar_dense.default,
            torch.ops.aten.nonzero.default,
            torch.ops.aten.equal.default,
        )
        assert function not in reads, f"{function} makes the host wait for the device"
        return function(*args, **(kwargs or {}))
