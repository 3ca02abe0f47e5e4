"""Frozen features that one player's turn computed, for the other's."""

from __future__ import annotations

import torch
from torch import Tensor


class SeenFeatures:
    """Remembers the features of one batch, as long as the batch is not written to and precision stays the same."""

    def __init__(self) -> None:
        self._seen: tuple[Tensor, tuple[int, torch.dtype | None], list[Tensor]] | None = None

    def remember(self, samples: Tensor, features: list[Tensor]) -> None:
        """Keep detached features of `samples`. Holding the samples keeps their memory from being used again."""
        if samples.is_inference():  # writes to it are not counted
            return
        made = samples._version, _precision(samples)
        self._seen = samples.detach(), made, [feature.detach() for feature in features]

    def recall(self, samples: Tensor) -> list[Tensor] | None:
        """The features, if `samples` are the batch that was remembered and need no gradient by features."""
        if self._seen is None or samples.requires_grad:
            return None
        seen, made, features = self._seen
        same = samples.data_ptr() == seen.data_ptr() and samples.shape == seen.shape
        same = same and samples.stride() == seen.stride() and samples.dtype == seen.dtype
        same = same and samples._version == seen._version
        return features if same and made == (samples._version, _precision(samples)) else None

    def forget(self) -> None:
        """Let go of the batch."""
        self._seen = None


def _precision(samples: Tensor) -> torch.dtype | None:
    """What autocast computes in at this place; None where it is off."""
    device = samples.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
