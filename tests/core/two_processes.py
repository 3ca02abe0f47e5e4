"""What `test_two_processes` runs in two processes at once; each writes what it saw to a file of its own.

Usage: ``python two_processes.py FOLDER`` with RANK and WORLD_SIZE set, or alone for one process.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

import advloss

PER_RANK = 4


class Sick(nn.Module):
    """A PatchGAN whose logits are NaN on demand."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.ill = inner, False

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        return self.inner(samples) * (torch.nan if self.ill else 1.0)


def make(seed: int, norm: str = "spectral", augmentations: tuple[str, ...] = ()) -> advloss.Adversary:
    torch.manual_seed(seed)
    inner = advloss.create_discriminator("patch", width=4, depth=1, norm=norm).double()
    lecam = advloss.create_regularizer("lecam", decay=0.5).double()
    regularizers = [("r1", {"every": 2}), "r2", lecam]
    return advloss.Adversary(Sick(inner), "hinge", regularizers, augmentations, max_grad_norm=1.0)


def tensors(adversary: advloss.Adversary) -> dict[str, Tensor]:
    modules = {"discriminator": adversary.discriminator, **adversary.regularizers}
    return {f"{n}.{key}": value.clone() for n, m in modules.items() for key, value in m.state_dict().items()}


def batches(steps: int, world: int, rank: int) -> list[tuple[Tensor, Tensor]]:
    """Global batches, of which this rank has its part."""
    generator = torch.Generator().manual_seed(11)
    whole = [torch.rand(2, 2 * PER_RANK, 3, 8, 8, generator=generator, dtype=torch.float64) for _ in range(steps)]
    return [tuple(side.chunk(world)[rank] * 2 - 1 for side in batch) for batch in whole]  # type: ignore[misc]


def main(folder: Path) -> None:
    accelerator = Accelerator(cpu=True)
    rank, world = accelerator.process_index, accelerator.num_processes
    seen: dict[str, Any] = {"world": world}
    saved: dict[str, dict[str, Tensor]] = {}

    adversary = make(seed=rank).prepare(accelerator)  # each rank builds other weights
    saved["start"] = tensors(adversary)
    seen["seed"] = adversary._players.seed
    reports = [adversary.discriminator_step(real, fake) for real, fake in batches(4, world, rank)]
    saved["trained"] = tensors(adversary)
    seen["norms"] = [float(report.grad_norm) for report in reports]

    noisy = make(seed=rank, augmentations=("instance-noise",)).prepare(accelerator)
    zeros = torch.zeros(1, 3, 8, 8, dtype=torch.float64)
    seen["noise"] = float(noisy.generator_loss(zeros))

    if world > 1:
        batchnorm = make(seed=rank, norm="batch").prepare(accelerator)
        for real, fake in batches(3, world, rank):
            batchnorm.discriminator_step(real, fake)
        saved["batch norm"] = tensors(batchnorm)

        before = tensors(adversary)
        adversary.discriminator.ill = rank == 1
        real, fake = batches(1, world, rank)[0]
        seen["skipped"] = adversary.discriminator_step(real, fake).skipped
        seen["unchanged"] = all(torch.equal(before[n], t) for n, t in tensors(adversary).items())
        adversary.discriminator.ill = False
        spoiled = real * torch.nan if rank == 0 else real
        seen["skipped samples"] = adversary.discriminator_step(spoiled, fake).skipped
        seen["unchanged samples"] = all(torch.equal(before[n], t) for n, t in tensors(adversary).items())
        seen["well again"] = not adversary.discriminator_step(real, fake).skipped
        saved["well again"] = tensors(adversary)

        try:
            adversary.discriminator_loss(real, fake)
        except advloss.CombinationError as error:
            seen["loss alone"] = str(error)

        lonely = folder / "lonely"
        if accelerator.is_main_process:  # as published scripts call it
            accelerator.save_state(lonely)
        accelerator.wait_for_everyone()
        seen["files"] = sorted(p.name for p in lonely.glob("adversary*"))
        adversary.discriminator_step(real, fake)
        adversary.load_state_dict(advloss.load_state(lonely / "adversary.safetensors"))
        saved["loaded"] = tensors(adversary)

        everyone = folder / "everyone"
        accelerator.save_state(everyone)
        adversary.discriminator_step(real, fake)
        accelerator.wait_for_everyone()
        accelerator.load_state(everyone)
        saved["loaded by all"] = tensors(adversary)
        adversary.discriminator_step(real, fake)
        saved["resumed"] = tensors(adversary)

        warm = make(seed=rank)  # trained alone before it is prepared, on other data in each process
        warm.discriminator_step(real, fake)
        warm.prepare(accelerator).discriminator_step(real, fake)
        saved["warm"] = tensors(warm)
        uneven = make(seed=rank)
        if rank == 1:
            uneven.discriminator_step(real, fake)
        try:
            uneven.prepare(accelerator)
        except advloss.StateError as error:
            seen["uneven"] = str(error)

    for name, content in saved.items():
        advloss.save_state(content, folder / f"{world}-{rank}-{name}")
    (folder / f"{world}-{rank}.json").write_text(json.dumps(seen))
    accelerator.end_training()


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
