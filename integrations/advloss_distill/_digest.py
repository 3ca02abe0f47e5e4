"""What tells data and teachers from others when a run is resumed: where they lie may change, what they hold may not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

COUNT = 1024  # numbers of a parameter, evenly spread; a teacher may have billions
ROWS = 1024  # that are copied from a device at a time


def data_digest(tensors: Mapping[str, Tensor]) -> str:
    """Of all that they hold, whatever their order, on every device the same."""
    return _digest((f"{name} {tuple(value.shape)}", value) for name, value in sorted(tensors.items()))


@torch.no_grad()
def weights_digest(network: nn.Module) -> str:
    """Of some numbers of each parameter, bit by bit, on every device and sharded or not the same. Call it in every process.

    Weights of another precision are others.
    """
    return _digest((str(tuple(parameter.shape)), _some(parameter)) for parameter in network.parameters())


def _some(parameter: Tensor) -> Tensor:
    values = (parameter.full_tensor() if isinstance(parameter, DTensor) else parameter).flatten()
    return values[:: max(1, len(values) // COUNT)]


def _digest(tensors: Iterable[tuple[str, Tensor]]) -> str:
    found = hashlib.sha256()
    for words, values in tensors:
        found.update(f"{words} {values.dtype}".encode())
        for part in values.split(ROWS):
            found.update(part.cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
