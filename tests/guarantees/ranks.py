"""What `test_ddp` runs in two processes at once, and in one: every case of the catalogue, a few steps each.

Usage: ``python ranks.py FOLDER`` with RANK and WORLD_SIZE set, or alone for one process.
"""

from __future__ import annotations

import faulthandler
import functools
import json
import sys
from pathlib import Path
from typing import Any

import catalogue
import torch
from accelerate import Accelerator
from core_tools import patch
from torch import Tensor

import advloss

GLOBAL = 8
STEPS = 3
LONG = 50
BOUND = 60  # seconds a case: then the process says where it hangs, and ends
LR, STEP_SIZE = 1e-3, "the largest step"
SGD = functools.partial(torch.optim.SGD, lr=LR)


def cases() -> list[catalogue.Combination]:
    return [combination.without_batch_norm() for combination in catalogue.covering()]


def tensors(adversary: advloss.Adversary) -> dict[str, Tensor]:
    modules = {"discriminator": adversary.discriminator, **adversary.regularizers}
    return {f"{n}.{key}": value.clone() for n, m in modules.items() for key, value in m.state_dict().items()}


def part(batch: Any, rank: int, world: int) -> Any:
    return None if batch is None else batch.chunk(world)[rank]


def run(combination: catalogue.Combination, accelerator: Any) -> dict[str, Tensor]:
    """Steps, every second of which has the regularizer, on this rank's part of the same global batches."""
    faulthandler.dump_traceback_later(BOUND, exit=True)
    rank, world = accelerator.process_index, accelerator.num_processes
    torch.manual_seed(1 + rank)  # each rank builds other weights: the main one's are taken
    adversary = combination.adversary(every=2, optimizer=SGD).prepare(accelerator)
    generator = torch.Generator().manual_seed(5)
    condition = part(combination.condition(GLOBAL), rank, world)
    shape = combination.samples(1).shape[1:]
    norms = []
    for _ in range(STEPS):
        real, fake = torch.empty(2, GLOBAL, *shape, dtype=torch.float64).uniform_(-1, 1, generator=generator)
        report = adversary.discriminator_step(part(real, rank, world), part(fake, rank, world), condition)
        norms.append(report.grad_norm)
    return {**tensors(adversary), STEP_SIZE: LR * torch.stack(norms).max()}


class Sick(torch.nn.Module):
    """A discriminator, or its loss, that is ill on one rank."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.ill = patch(norm="batch"), ""

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        logits = self.inner(samples)
        if self.ill == "gradient":
            return logits + (logits * 0).abs().sqrt()
        return logits * (torch.nan if self.ill == "logits" else 1.0)


def fault(place: str, accelerator: Any) -> dict[str, Any]:
    """A value that is not finite on the last rank only: what each rank did."""
    faulthandler.dump_traceback_later(BOUND, exit=True)
    ill = accelerator.process_index == accelerator.num_processes - 1
    adversary = advloss.Adversary(Sick(), "hinge", ["lecam"], seed=0).prepare(accelerator)
    real, fake = torch.rand(2, 4, 3, 8, 8, dtype=torch.float64)
    adversary.discriminator_step(real, fake)
    before = tensors(adversary)
    given = {"real": real, "fake": fake}
    adversary.discriminator.ill = place if ill else ""
    if ill and place in given:
        given[place] = given[place] * torch.nan
    report = adversary.discriminator_step(**given)
    same = all(torch.equal(before[n], t) for n, t in tensors(adversary).items())
    adversary.discriminator.ill = ""
    well = not adversary.discriminator_step(real, fake).skipped
    return {"skipped": bool(report.skipped), "unchanged": same, "well again": well}


def fault_of_the_model(accelerator: Any) -> dict[str, Any]:
    """The same for a model that the script trains, without the averaging that would spread it."""
    faulthandler.dump_traceback_later(BOUND, exit=True)
    ill = accelerator.process_index == accelerator.num_processes - 1
    model = torch.nn.Linear(3, 1)
    optimizer = torch.optim.Adam(model.parameters())
    guard = advloss.StepGuard(model, optimizer, accelerator=accelerator)

    def moved(factor: float) -> bool:
        before = model.weight.detach().clone()
        optimizer.zero_grad()
        (model(torch.rand(2, 3)).sum() * factor).backward()
        guard.step()
        return not torch.equal(before, model.weight)

    well, bad, again = moved(1.0), moved(torch.nan if ill else 1.0), moved(1.0)
    return {"skipped": well and not bad, "unchanged": not bad, "well again": again}


def main(folder: Path) -> None:
    accelerator = Accelerator(cpu=True)
    rank, world = accelerator.process_index, accelerator.num_processes
    places = ("real", "fake", "logits", "gradient") if world > 1 else ()
    faults = {place: fault(place, accelerator) for place in places}
    faults |= {"generator": fault_of_the_model(accelerator)} if world > 1 else {}
    catalogue.same_draws()
    found = {str(combination): run(combination, accelerator) for combination in cases()}
    faulthandler.dump_traceback_later(BOUND, exit=True)
    if world > 1:
        torch.manual_seed(rank)
        long = catalogue.Combination("patch", "relativistic", "lecam").adversary(augmentations=["diffaugment"])
        long.prepare(accelerator)
        for _ in range(LONG):
            long.discriminator_step(*(torch.empty(2, 4, 3, 8, 8, dtype=torch.float64).uniform_(-1, 1)))
        found["long"] = tensors(long)
    advloss.save_state(found, folder / f"{world}-{rank}")
    (folder / f"{world}-{rank}.json").write_text(json.dumps(faults))
    accelerator.end_training()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
