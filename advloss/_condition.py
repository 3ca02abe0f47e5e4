"""What samples are conditioned on: class indices `(N,)`, vectors `(N, C)`, images, or a mapping of these."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from torch import Tensor

from advloss.errors import InputError
from advloss.specs import ConditionKind

Condition: TypeAlias = Tensor | Mapping[str, Tensor]


def select_condition(condition: Condition | None, kind: ConditionKind) -> Tensor:
    """The part of `condition` of one kind: itself when it is a tensor, its entry when it is a mapping.

    Raises:
        InputError: there is none.
    """
    if isinstance(condition, Tensor):
        return condition
    if condition is None:
        raise InputError(f"this discriminator needs a {kind} condition and got none: pass condition=")
    if kind not in condition:
        raise InputError(
            f"this discriminator needs condition[{kind!r}]; given: {sorted(condition) or 'an empty mapping'}"
        )
    return condition[kind]
