"""What is asked of results and of modules."""

from __future__ import annotations

import copy
import unittest
from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from advloss._logits import Logits, as_scales


def expect(holds: object, message: str) -> None:
    """Fail with `message` unless it `holds`."""
    if not holds:
        raise AssertionError(message)


def not_applicable(reason: str) -> NoReturn:
    """Leave a check out."""
    raise unittest.SkipTest(reason)


def fails(call: Callable[..., Any], *args: Any, error: type[Exception] = Exception) -> bool:
    """Whether the call raises `error`."""
    try:
        call(*args)
    except error:
        return True
    return False


def finite(logits: Logits) -> bool:
    """Whether all logits are."""
    return all(bool(scale.isfinite().all()) for scale in as_scales(logits))


def same(one: Logits, other: Logits, tolerance: float = 0.0) -> bool:
    """Whether two results agree, bit by bit or within `tolerance` times (1 + the largest value)."""
    pairs = list(zip(as_scales(one), as_scales(other)))
    if len(as_scales(one)) != len(as_scales(other)) or any(a.shape != b.shape for a, b in pairs):
        return False
    return all(
        torch.equal(a, b) if tolerance == 0 else bool((a - b).abs().max() <= tolerance * (1 + b.abs().max()))
        for a, b in pairs
    )


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors in `value`, a tensor, a mapping or None."""
    if isinstance(value, Mapping):
        return list(value.values())
    return [] if value is None else [value]


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's parameters and buffers."""
    return {n: t.detach().clone() for n, t in (*module.named_parameters(), *module.named_buffers())}


def changed(module: nn.Module, before: Mapping[str, Tensor]) -> list[str]:
    """Names of the parameters and buffers that are not as they were."""
    return [n for n, t in state_of(module).items() if not torch.equal(t, before[n])]


def copied(module: nn.Module) -> nn.Module:
    """A deep copy, for calls that move buffers."""
    return copy.deepcopy(module)


def flags_of(module: nn.Module) -> dict[str, bool]:
    """Which modules are in training mode, and which parameters require gradients, by name."""
    modes = {f"{name}.training".lstrip("."): part.training for name, part in module.named_modules()}
    return {**modes, **{f"{name}.requires_grad": p.requires_grad for name, p in module.named_parameters()}}


def expect_flags(module: nn.Module, before: Mapping[str, bool], subject: str) -> None:
    """Fail when a flag of `module` is not as it was."""
    turned = [name for name, flag in flags_of(module).items() if flag != before[name]]
    expect(not turned, f"{subject} changed {', '.join(turned[:3])}: leave modes and requires_grad to the caller")
