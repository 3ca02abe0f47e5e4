"""What a projection discriminator multiplies its features with: the embedding of the condition."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from advloss import Condition, InputError, select_condition
from advloss.specs import ConditionKind


@final
class ConditionEmbedding(nn.Module):
    """``e(y)``, `(N, features)`: the sum of the embeddings of a class, a vector and a step index.

    Each part is linear, so a sum over parts is one linear embedding of their concatenation. Weights start as
    N(0, 1 / features): the inner product with features of order one is then of order one.

    Args:
        features: length of the embedding.
        num_classes: classes 0 to `num_classes` - 1, condition kind ``"class"``.
        condition_features: length of vectors, condition kind ``"vector"``.
        num_steps: steps 0 to `num_steps` - 1, condition kind ``"time"``.
    """

    def __init__(
        self, features: int, num_classes: int | None, condition_features: int | None, num_steps: int | None
    ) -> None:
        super().__init__()
        self.kinds: list[ConditionKind] = []
        self.embeddings = nn.ModuleList()
        if num_classes is not None:
            self._add("class", nn.Embedding(num_classes, features), features)
        if condition_features is not None:
            self._add("vector", nn.Linear(condition_features, features, bias=False), features)
        if num_steps is not None:
            self._add("time", nn.Embedding(num_steps, features), features)

    def _add(self, kind: ConditionKind, layer: nn.Embedding | nn.Linear, features: int) -> None:
        nn.init.normal_(layer.weight, 0.0, features**-0.5)
        self.kinds.append(kind)
        self.embeddings.append(layer)

    def forward(self, condition: Condition | None) -> Tensor:
        """The embedding of `condition`, a mapping when it has more than one part.

        Raises:
            InputError: a part is missing, or one tensor is given for several.
        """
        if len(self.kinds) > 1 and isinstance(condition, Tensor):
            raise InputError(f"one condition tensor was given; give a mapping with {' and '.join(self.kinds)}")
        parts = [layer(select_condition(condition, kind)) for kind, layer in zip(self.kinds, self.embeddings)]
        return torch.stack(parts).sum(0)


def embed(
    features: int, num_classes: int | None, condition_features: int | None, num_steps: int | None
) -> ConditionEmbedding | None:
    """A `ConditionEmbedding`, or None for a discriminator without condition."""
    if num_classes is None and condition_features is None and num_steps is None:
        return None
    return ConditionEmbedding(features, num_classes, condition_features, num_steps)


def project(embedding: ConditionEmbedding | None, features: Tensor, condition: Condition | None) -> Tensor | float:
    """``<e(y), phi>``, `(N,)` (arXiv:1802.05637, eq. 3), for `features` phi `(N, features)`; 0 without embedding."""
    return 0.0 if embedding is None else (embedding(condition) * features).sum(1)
