"""Gloo processes on this machine: bounded, and ended by their own ids."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_GROUP = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
ENVIRONMENT = {
    **{name: value for name, value in os.environ.items() if name not in _GROUP},
    "OMP_NUM_THREADS": "1",
    "ACCELERATE_USE_CPU": "true",
    "PYTHONPATH": os.pathsep.join(sys.path),  # the tools beside the tests
}


@dataclass(frozen=True)
class Ended:
    """Exit statuses, group by group and rank by rank, and what all processes said."""

    statuses: list[int]
    said: str

    def check(self) -> None:
        """Fail unless all went well."""
        assert not any(self.statuses), f"{self.statuses}\n{self.said[-4000:]}"


def run(script: str | Path, *arguments: Any, worlds: Sequence[int] = (2,), seconds: float = 240) -> Ended:
    """Run a script with these arguments in every process of a group of each size, all at once."""
    processes = []
    try:
        for world in worlds:
            port = _free_port()
            for rank in range(world):
                place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
                group = {"MASTER_ADDR": "127.0.0.1", **{name: str(value) for name, value in place.items()}}
                processes.append(_start(script, arguments, group if world > 1 else {}))
        with ThreadPoolExecutor(len(processes)) as pool:  # each is listened to: a full pipe would hold it up
            said = list(pool.map(lambda process: process.communicate(timeout=seconds)[0], processes))
    finally:
        for process in processes:
            process.kill()
    return Ended([process.returncode for process in processes], "\n".join(said))


def _start(script: str | Path, arguments: Sequence[Any], group: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(script), *map(str, arguments)],
        env={**ENVIRONMENT, **group},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
