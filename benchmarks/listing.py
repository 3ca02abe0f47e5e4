"""What ``advloss list`` takes beyond Python's own start."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

from benchmarks._harness import Settings, Table

TARGET = 0.2
"""Seconds more than ``python -c pass``."""


def rows(settings: Settings) -> Iterator[Table]:
    """Processor seconds of the two processes, which take turns."""
    times = [(_seconds("-m", "advloss", "list"), _seconds("-c", "pass")) for _ in range(max(2, settings.pairs))]
    more = statistics.median(listing - empty for listing, empty in times)
    columns = ("`advloss list`, s", "`python -c pass`, s", "more, s", "target, s", "holds")
    medians = [statistics.median(column) for column in zip(*times)]
    yield Table(title="Listing the catalogue", columns=columns, rows=[[*medians, more, TARGET, more <= TARGET]])


def _seconds(*args: str) -> float:
    before = os.times()
    subprocess.run([sys.executable, *args], stdout=subprocess.DEVNULL, check=True)
    after = os.times()
    return after.children_user - before.children_user + after.children_system - before.children_system
