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
        InputError: one is missing, or of the wrong shape, type or range.
    """
    if num_classes is not None and condition_features is not None and isinstance(condition, Tensor):
        raise InputError("this discriminator uses a class and a vector: give condition={'class': ..., 'vector': ...}")
    labels = vectors = None
    if num_classes is not None:
        labels = select_condition(condition, "class")
        if labels.shape != (batch,) or labels.dtype not in (torch.int64, torch.int32):
            raise InputError(
                f"classes of shape {tuple(labels.shape)} and {labels.dtype}; expected whole numbers ({batch},)"
            )
        if not torch.compiler.is_compiling() and bool(((labels < 0) | (labels >= num_classes)).any()):
            raise InputError(f"class indices must be from 0 to {num_classes - 1}; given {labels.unique().tolist()}")
    if condition_features is not None:
        vectors = select_condition(condition, "vector")
        if vectors.shape != (batch, condition_features) or not vectors.is_floating_point():
            raise InputError(
                f"vectors of shape {tuple(vectors.shape)} and {vectors.dtype}; expected floats ({batch}, {condition_features})"
            )
    return labels, vectors
