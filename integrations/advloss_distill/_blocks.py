"""Features of a network: what its blocks put out, by forward hooks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from advloss import OptionError


def block_names(network: nn.Module, patterns: Sequence[str], chosen: Sequence[int] | None = None) -> list[str]:
    """Names of the modules that `patterns` stand for, pattern by pattern; ``*`` is a number, from the least on.

    Args:
        chosen: places in that order; None takes all.

    Raises:
        OptionError: there is none, no such place, or one is given twice.
    """
    expressions = [re.escape(pattern).replace(r"\*", r"\d+") for pattern in patterns]
    modules = [name for name, _ in network.named_modules()]
    names = [name for expression in expressions for name in modules if re.fullmatch(expression, name)]
    if not names:
        raise OptionError(f"a {type(network).__name__} has no modules {', '.join(patterns)}; name others in blocks")
    if chosen is None:
        return names
    if wrong := [i for i in chosen if not 0 <= i < len(names)]:
        raise OptionError(f"blocks {wrong}: this {type(network).__name__} has {len(names)}, from 0 to {len(names) - 1}")
    if len(set(chosen)) < len(chosen):
        raise OptionError(f"blocks {list(chosen)}: one is given twice, and would be judged twice; give each once")
    return [names[i] for i in chosen]


def block_outputs(
    network: nn.Module, names: Sequence[str], read: Callable[[Any], Tensor], run: Callable[[], object]
) -> list[Tensor]:
    """What the modules `names` put out while `run` runs, each as tokens `(N, C, L)`.

    Args:
        read: from a module's output to its tensor: a map `(N, C, h, w)`, or tokens `(N, L, C)`.
    """
    found: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            found[name] = read(output)

        return hook

    handles = [network.get_submodule(name).register_forward_hook(keep(name)) for name in names]
    try:
        run()
    finally:
        for handle in handles:
            handle.remove()
    return [_tokens(found[name]) for name in names]


def _tokens(feature: Tensor) -> Tensor:
    return feature.flatten(2) if feature.ndim == 4 else feature.transpose(1, 2)
