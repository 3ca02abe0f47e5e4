"""A mode in which reading a value is a failure."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_ATEN = torch.ops.aten
_READS = {
    _ATEN._local_scalar_dense.default,
    _ATEN.nonzero.default,
    _ATEN.equal.default,
    _ATEN.masked_select.default,
    _ATEN._unique2.default,
    _ATEN.bincount.default,
}
_INDEXES = {_ATEN.index.Tensor, _ATEN.index_put.default, _ATEN.index_put_.default}


class NoReading(TorchDispatchMode):
    """Fails when a value would go from a device to the host: ``.item()``, ``bool(tensor)``, sizes that depend on values, and
    by name, since they are free on a CPU, ``.cpu()``, ``.tolist()`` and ``.numpy()``."""

    def __enter__(self) -> Any:
        self._stack = ExitStack()
        self._stack.enter_context(_NoAsking())
        return super().__enter__()

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)
        self._stack.close()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        masked = function in _INDEXES and any(i is not None and i.dtype in (torch.bool, torch.uint8) for i in args[1])
        assert function not in _READS, f"{function} makes the host wait for the device"
        assert not masked, f"{function} by a mask makes the host wait for the device"
        return function(*args, **(kwargs or {}))


class _NoAsking(TorchFunctionMode):
    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert function not in (Tensor.cpu, Tensor.tolist, Tensor.numpy), (
            f"{function} makes the host wait for the device"
        )
        return function(*args, **(kwargs or {}))
