"""Run by test_autoencoder_processes in two processes: trains, and tells."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from accelerate import Accelerator
from autoencoder_tools import tiny_training

out = Path(sys.argv[1])
accelerator = Accelerator(cpu=True)
assert accelerator.num_processes == 2
training = tiny_training(accelerator, start_step=1)
seen = []
training.run(3, lambda progress: seen.append(progress.as_dict()), checkpoints=out / "checkpoints")
told = {
    "model": training.model.state_dict(),
    "average": list(training.ema.shadow_params),
    "discriminator": training.adversary.state_dict()["discriminator"],
    "lecam": training.adversary.state_dict()["regularizers"]["lecam"],
    "adaptive": [numbers.get("adaptive_weight") for numbers in seen],
    "pixel": [numbers["pixel"] for numbers in seen],
}

# lambda is that of both halves together: what one process finds for the whole batch
images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(9)) * 2 - 1
half = images[2 * accelerator.process_index :][:2]
training.autoencoder.module.sample_posterior = False
training.objective.crop, training.objective.matching = None, None
shared = training.objective(training.autoencoder(half), half)
told["shared"] = float(shared.adaptive_weight)
shared.total.backward()
told["gradient"] = training.model.decoder.conv_out.weight.grad

training.adversary._players.runtime = type(
    "Alone",
    (),
    {
        "world": 1,
        "rank": 0,
        "autocast": training.adversary._runtime.autocast,
        "scale": staticmethod(lambda loss: loss),
        "mean": staticmethod(lambda flat: flat),
    },
)()
training.model.zero_grad()
alone = training.objective(training.autoencoder.module(images), images)
told["alone"] = float(alone.adaptive_weight)
alone.total.backward()
told["gradient of all"] = training.model.decoder.conv_out.weight.grad
torch.save(told, out / f"rank{accelerator.process_index}.pt")
accelerator.end_training()
