"""Checks of options that both discriminators take."""

from __future__ import annotations

from advloss import OptionError


def whole(name: str, value: object, least: int = 1) -> int:
    """`value` when it is a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(f"{name}={value!r}; give a whole number of at least {least}")
    return value


def image_channels(value: object) -> int:
    """`value` when a pretrained image backbone can be given so many channels."""
    if value not in (1, 3):
        raise OptionError(f"in_channels={value!r}: a pretrained backbone sees images; give 3, or 1 for grey ones")
    return whole("in_channels", value)


def whole_or_none(name: str, value: object) -> int | None:
    """The same, or None."""
    return None if value is None else whole(name, value)
