"""What an adversary steps, an optimizer and a scheduler, checked when they are built."""

from __future__ import annotations

import inspect
from typing import Any

from advloss.errors import OptionError


def check_steps(name: str, made: Any, *attributes: str) -> None:
    """Raise OptionError unless `made` has `attributes` and a `step` that is called without arguments."""
    kind = type(made).__name__
    if missing := [a for a in ("step", *attributes) if not hasattr(made, a)]:
        raise OptionError(f"{name}= returned a {kind}, which has no {' and no '.join(missing)}; return a torch {name}")
    if needed := _required(made.step):
        raise OptionError(
            f"{name}= returned a {kind}, whose step needs {', '.join(needed)}; an adversary calls step(): give a {name} "
            "that needs nothing there"
        )


def _required(function: Any) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # one that does not say
        return []
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
