"""What `test_preemption` runs in two processes: a training in which one of them gets a signal, or a full disk.

Usage: ``python preempted.py FOLDER RANK SIGNAL STEP`` with the environment that a launcher sets. The process of that
rank gets the signal while it reads the data of that step; the signal 0 stands for a full disk at the next save.
"""

from __future__ import annotations

import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from advloss import Adversary
from advloss_gan import MLPGenerator, ring, train_gan

folder, rank, number, step = Path(sys.argv[1]), *map(int, sys.argv[2:])
torch.set_num_threads(1)
accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2
set_seed(0, device_specific=True)


def batches() -> Iterator[Tensor]:
    """Two to a step; the signal arrives with the first of its step."""
    for count, batch in enumerate(ring().batches(8)):
        if accelerator.process_index == rank and count == 2 * (step - 1):
            if number:
                os.kill(os.getpid(), number)
            else:
                resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        yield batch


result = train_gan(
    MLPGenerator(latent_features=2, width=8),
    Adversary(("mlp", {"width": 8}), "relativistic", {"r1": {"weight": 0.1, "every": 2}}),
    batches(),
    latent_features=2,
    steps=1000,
    accelerator=accelerator,
    checkpoints=folder,
    save_every=2,
)
signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a launcher ends the others when one is gone
accelerator.end_training()
sys.exit(result.exit_status)
