"""A discriminator's step in several processes on one machine: ``python -m benchmarks._ranks SIDE BATCH STEPS`` is one of them."""

from __future__ import annotations

import json
import os
import socket
import statistics
import subprocess
import sys
from typing import Any

import torch


def measure(world: int, side: int, batch: int, steps: int) -> dict[str, Any]:
    """Processor seconds a step and peak bytes of the main process, of so many."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "benchmarks._ranks", str(side), str(batch), str(steps)]
    ranks = [
        subprocess.Popen(
            command,
            env={**os.environ, **shared, "RANK": str(rank), "LOCAL_RANK": str(rank), "KINETO_LOG_LEVEL": "5"},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    printed = [process.communicate()[0] for process in ranks]
    if any(process.returncode for process in ranks):
        raise RuntimeError(f"a process of {world} failed: {[process.returncode for process in ranks]}")
    return json.loads(printed[0].splitlines()[-1])


def main() -> None:
    from accelerate import Accelerator

    from advloss import Adversary
    from benchmarks._harness import peak_bytes, seconds
    from benchmarks._players import DiscriminatorAlone

    side, batch, steps = map(int, sys.argv[1:])
    torch.set_num_threads(1)
    accelerator = Accelerator(cpu=True)

    def make() -> DiscriminatorAlone:
        loop = DiscriminatorAlone(lambda: Adversary(("patch", {"width": 32, "depth": 2}), "hinge"), side, batch, "cpu")
        loop.adversary.prepare(accelerator)
        return loop

    loop = make()
    times = [seconds(loop.step, "cpu") for _ in range(steps)][1:]
    most = peak_bytes(make, "cpu")
    print(json.dumps({"seconds": statistics.median(times), "bytes": most}))
    accelerator.end_training()


if __name__ == "__main__":
    main()
