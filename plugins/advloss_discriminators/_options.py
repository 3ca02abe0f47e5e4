"""Checks of constructor options: what is wrong, what was given, what to do."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import nn

from advloss import OptionError

_TAKES = (
    "dims",
    "in_channels",
    "in_features",
    "resolution",
    "smallest",
    "num_classes",
    "condition_features",
    "condition_channels",
    "num_steps",
)


def check_positive(**options: Any) -> None:
    """Raise OptionError unless every option is a whole number, 1 or more."""
    for name, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise OptionError(f"{name}={value!r}: give a whole number, 1 or more")


def check_optional(**options: Any) -> None:
    """Raise OptionError unless every option is None or a whole number, 1 or more."""
    check_positive(**{name: value for name, value in options.items() if value is not None})


def check_choice(allowed: Collection[Any], **options: Any) -> None:
    """Raise OptionError unless every option is one of `allowed`."""
    for name, value in options.items():
        if value not in allowed:
            raise OptionError(f"{name}={value!r}: use one of {', '.join(map(repr, allowed))}")


def halvings(resolution: Any, last: range) -> int:
    """How often `resolution` can be halved, without a remainder, until it lies in `last`; once at least.

    Raises:
        OptionError: it cannot.
    """
    check_positive(resolution=resolution)
    side, count = resolution, 0
    while side >= last.stop and side % 2 == 0:
        side, count = side // 2, count + 1
    if side not in last or count == 0:
        start = str(last.start) if len(last) == 1 else f"a number from {last.start} to {last.stop - 1}"
        raise OptionError(f"resolution={resolution!r}: give {start} times a power of two, {2 * last.start} or more")
    return count


def take_over(module: nn.Module, inner: nn.Module) -> None:
    """Let `module` say of the samples and conditions that it takes what `inner` says."""
    for name in _TAKES:
        if hasattr(inner, name):
            setattr(module, name, getattr(inner, name))


def parse_wrapped(discriminator: Any, further: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name and options of the discriminator that another one wraps, with `further` ones, which the wrapper was given for it.

    Raises:
        OptionError: it is not by name, or has an option twice.
    """
    pair = (discriminator, {}) if isinstance(discriminator, str) else discriminator
    if not (
        isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], Mapping)
    ):
        raise OptionError(
            f"discriminator={discriminator!r}: give a name or a (name, options) pair"
            + (f"; {', '.join(further)} can be given to no other kind" if further else "")
        )
    name, options = pair
    twice = sorted(options.keys() & further.keys())
    if twice:
        raise OptionError(f"{', '.join(twice)}: given to {name!r} and beside it; give it once")
    return name, {**options, **further}
