"""Two processes: one training, each on data of its own."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("accelerate")

RANK = """
import sys
import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from advloss import Adversary
from advloss_gan import MLPGenerator, ring, train_gan

accelerator = Accelerator(cpu=True)
rank = accelerator.process_index
torch.manual_seed(rank)  # initial weights differ, and must not matter
generator = MLPGenerator(latent_features=2, width=8)
adversary = Adversary(("mlp", {"width": 8}), "relativistic", {"r1": {"weight": 0.1}})
set_seed(0, device_specific=True)
batches = [ring().sample(8) for _ in range(6)]


def interrupt(step, averaged):  # on the main process alone
    if step == 3:
        import signal
        signal.raise_signal(signal.SIGINT)


result = train_gan(
    generator, adversary, batches, latent_features=2, steps=100, accelerator=accelerator, on_step=interrupt
)
modules = {"generator": generator, "average": result.generator, "discriminator": adversary.discriminator}
state = {name: torch.cat([p.detach().flatten() for p in module.parameters()]) for name, module in modules.items()}
torch.save({**state, "data": batches[0], "steps": torch.tensor(result.steps)}, f"{sys.argv[1]}/{rank}.pt")
accelerator.end_training()
"""


def test_ranks_agree_and_stop_together(tmp_path):
    import torch

    script = tmp_path / "rank.py"
    script.write_text(RANK)
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", script, tmp_path],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["steps"] == second["steps"] == 3
    assert not torch.equal(first["data"], second["data"])
    for name in ("generator", "average", "discriminator"):
        torch.testing.assert_close(first[name], second[name], rtol=0, atol=1e-6)
