"""Values on their way from a GPU to the host, where nobody waits for them."""

from __future__ import annotations

import torch
from torch import Tensor


class Late:
    """A tensor that is read some steps later. On a GPU its copy travels behind the work that makes it."""

    def __init__(self, values: Tensor) -> None:
        self._values = values
        self._arrived: torch.cuda.Event | None = None
        if values.device.type == "cuda":
            self._values = torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(
                values, non_blocking=True
            )
            self._arrived = torch.cuda.Event()
            self._arrived.record()

    @property
    def arrived(self) -> bool:
        """Whether reading costs no wait."""
        return self._arrived is None or self._arrived.query()

    def read(self) -> Tensor:
        """The values, on the host. One step later the GPU still has that step's work before it: that holds nothing up."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._values
