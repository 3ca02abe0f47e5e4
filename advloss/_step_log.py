"""A log with one line for each step, that goes on where a resumed run does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TextIO


def open_step_log(path: Path, steps: int) -> TextIO:
    """Open a log for what comes after `steps` lines; lines beyond them go.

    A run that was killed has logged steps that its last checkpoint does not know, and takes them again.
    """
    with path.open("ab+") as file:
        file.seek(0)
        end = 0
        for _ in range(steps):
            line = file.readline()
            if not line.endswith(b"\n"):
                break
            end += len(line)
        os.truncate(path, end)
    return path.open("a", encoding="utf-8", buffering=1)
