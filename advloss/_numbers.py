"""An adversary's own numbers, checked before anything is built."""

from __future__ import annotations

import math
from numbers import Real

from advloss.errors import OptionError


def check_numbers(
    *,
    weight: float,
    max_grad_norm: float | None,
    start_step: int,
    discriminator_start_step: int | None,
    max_skipped: int,
) -> None:
    """Raise OptionError unless all of them can be what `Adversary` says of them."""
    if not isinstance(weight, Real) or not math.isfinite(weight) or weight < 0:
        raise OptionError(f"weight={weight!r}; give a finite number that is not negative")
    if max_grad_norm is not None and not (isinstance(max_grad_norm, Real) and max_grad_norm > 0):
        raise OptionError(f"max_grad_norm={max_grad_norm!r}; give a number above 0, or None for no clipping")
    counts = {
        "start_step": start_step,
        "discriminator_start_step": discriminator_start_step,
        "max_skipped": max_skipped,
    }
    for name, count in counts.items():
        if count is not None and not (isinstance(count, int) and count >= 0):
            raise OptionError(f"{name}={count!r}; give a whole number of steps, 0 or more")
