"""What is written down of a step: a line of the log, and numbers for a tracker."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TextIO

from accelerate import Accelerator
from torch import Tensor

from advloss import Report


def record(
    step: int,
    loss: Tensor,
    report: Report,
    lines: TextIO | None,
    accelerator: Accelerator,
    track_every: int,
    about: Mapping[str, Any] | None = None,
) -> None:
    """Write a JSON line, in which a value that is not finite is null, and every `track_every` steps tell the trackers.

    The line says what the run is built from where `about` is given: `advloss doctor` reads it there.
    """
    tracked = bool(accelerator.trackers) and step % track_every == 0
    if lines is None and not tracked:
        return
    numbers = {f"discriminator/{name}": value for name, value in report.as_dict().items() if name != "step"}
    numbers = {"generator/loss": float(loss.detach()), **numbers}
    if lines is not None:
        finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
        print(json.dumps({"step": step, **finite, **({} if about is None else {"about": about})}), file=lines)
    if tracked:
        accelerator.log(numbers, step=step)
