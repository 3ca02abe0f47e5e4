"""What the heads read of a condition, checked once for all of them."""

from __future__ import annotations

import torch
from torch import Tensor

from advloss import Condition, InputError, select_condition


def read_condition(
    condition: Condition | None, batch: int, num_classes: int | None, condition_features: int | None
) -> tuple[Tensor | None, Tensor | None]:
    """Class indices `(N,)` and vectors `(N, condition_features)`, each None where the heads do not use it.

    Raises:
        InputError: one is missing, or of the wrong shape or type, or (on the CPU) an index is out of range.
    """
    if num_classes is not None and condition_features is not None and isinstance(condition, Tensor):
        raise InputError("this discriminator uses a class and a vector: give condition={'class': ..., 'vector': ...}")
    labels = vectors = None
    if num_classes is not None:
        labels = select_condition(condition, "class")
        given = f"classes of shape {tuple(labels.shape)} and {labels.dtype}"
        if labels.shape != (batch,) or labels.is_floating_point() or labels.dtype == torch.bool:
            raise InputError(f"{given}; expected indices ({batch},), int64")
        if labels.device.type == "cpu" and (labels.min() < 0 or labels.max() >= num_classes):
            raise InputError(
                f"{given} from {int(labels.min())} to {int(labels.max())}; there are 0 to {num_classes - 1}"
            )
        labels = labels.long()
    if condition_features is not None:
        vectors = select_condition(condition, "vector")
        given = f"vectors of shape {tuple(vectors.shape)} and {vectors.dtype}"
        if vectors.shape != (batch, condition_features) or not vectors.is_floating_point():
            raise InputError(f"{given}; expected floats ({batch}, {condition_features})")
    return labels, vectors
