"""What tells one teacher from another, when a run is resumed: where it lies may change, its weights may not."""

from __future__ import annotations

import hashlib

import torch
from torch import nn
from torch.distributed.tensor import DTensor

COUNT = 1024  # numbers of a parameter, evenly spread; a teacher may have billions


@torch.no_grad()
def weights_digest(network: nn.Module) -> str:
    """Of some numbers of each parameter, bit by bit, on every device and sharded or not the same. Call it in every process.

    Weights of another precision are others.
    """
    found = hashlib.sha256()
    for parameter in network.parameters():
        values = (parameter.full_tensor() if isinstance(parameter, DTensor) else parameter).flatten()
        some = values[:: max(1, len(values) // COUNT)].cpu().contiguous()
        found.update(f"{some.dtype} {tuple(parameter.shape)}".encode())
        found.update(some.view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:16]
