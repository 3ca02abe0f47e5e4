"""CycleGAN on embedded photographs: two domains without pairs, two generators, two adversaries.

Crops of photographs are one domain; other crops, drawn on their own, in an old print's colours (sepia-like, of less contrast)
are the other. Nothing tells what a crop of one domain would look like in the other. The aim, stated beforehand, for photographs
that no network has seen and whose true old prints are known: each generator takes away more than half of the mean absolute
difference between photograph and old print, in its direction, on two CPU cores in less than 5 minutes. metrics.json says whether
a run has reached it; docs/superres.md says which have.

    pip install 'advloss[superres]'
    python examples/train_cyclegan.py
    python examples/train_cyclegan.py --resume                        # go on after Ctrl-C

This is also how a script with two adversaries and a loop of its own looks. Everything is written to one folder (--out):
weights, metrics.json, log.jsonl, comparison.png.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.nn.functional import l1_loss
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import advloss
from advloss_superres import (
    DegradedCrops,
    DegradedPairs,
    ImagePool,
    ResidualNetwork,
    photographs,
    save_comparison,
    save_weights,
)

OTHER = {"old": "new", "new": "old"}  # domains: old prints and photographs


class OldPrint:
    """A degradation that changes colours alone: two thirds grey, tinted, of less contrast."""

    scale, margin = 1, 0

    def __call__(self, high: Tensor, generator: torch.Generator | None = None) -> Tensor:
        image = (high + 1) / 2
        tinted = image.mean(1, keepdim=True) * image.new_tensor([1.05, 0.9, 0.65]).view(1, 3, 1, 1)
        return (0.1 + 0.75 * (0.35 * image + 0.65 * tinted)).clamp(0, 1) * 2 - 1


class Unpaired(Dataset):
    """A crop of each domain, at places and of photographs of their own."""

    def __init__(self, images: list[Tensor], side: int) -> None:
        self.crops = DegradedCrops(images, OldPrint(), side, crops=1024 // len(images))

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        other = int(torch.randint(len(self), ()))
        return {"old": self.crops[index][0], "new": self.crops[other][1]}


class Cycle(nn.Module):
    """Both generators in one forward, so that Accelerate's wrappers see every call."""

    def __init__(self) -> None:
        super().__init__()
        self.generators = nn.ModuleDict({domain: ResidualNetwork(1, width=16, depth=2) for domain in OTHER})

    def forward(self, real: dict[str, Tensor]) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
        """For each domain: what is made of the other's images, that brought back, and what is made of its own."""
        images = {}
        for domain, other in OTHER.items():
            made = self.generators[domain](real[other])
            images[domain] = made, self.generators[other](made), self.generators[domain](real[domain])
        return images


class CycleGAN:
    """The game (arXiv:1703.10593): least squares, image pools, cycle consistency and identity."""

    def __init__(self, options: argparse.Namespace, accelerator: Accelerator) -> None:
        adam = functools.partial(torch.optim.Adam, betas=(0.5, 0.999), fused=True)
        self.cosine = functools.partial(
            torch.optim.lr_scheduler.CosineAnnealingLR, T_max=options.steps, eta_min=options.lr / 20
        )
        self.options, self.accelerator, self.cycle = options, accelerator, Cycle()
        self.model, self.optimizer = accelerator.prepare(self.cycle, adam(self.cycle.parameters(), lr=options.lr))
        self.scheduler = self.cosine(self.optimizer.optimizer)  # one step a step, with any number of processes
        self.guard = advloss.StepGuard(self.cycle, self.optimizer, accelerator=accelerator)
        self.adversaries = {
            domain: self._adversary(functools.partial(adam, lr=options.discriminator_lr)) for domain in OTHER
        }
        self.pools = {domain: ImagePool(50) for domain in OTHER}
        crops = Unpaired(photographs()[0], options.side)
        loader = DataLoader(crops, options.batch, shuffle=True, drop_last=True)
        self.batches = advloss.EndlessBatches(accelerator.prepare(loader))
        self.step_count = 0

    def _adversary(self, optimizer: advloss.MakeOptimizer) -> advloss.Adversary:
        """The paper's, but without instance norm, which takes the colours away that are to be judged."""
        discriminator = ("patch", {"width": 32, "depth": 2, "norm": "none"})
        slope = {"r1": {"weight": 0.001}}
        adversary = advloss.Adversary(discriminator, "least-squares", slope, optimizer=optimizer, scheduler=self.cosine)
        return adversary.prepare(self.accelerator)

    def step(self) -> dict[str, float]:
        """Both generators' turn, then each discriminator's on images of its pool."""
        real, losses, options = next(self.batches), {}, self.options
        images = self.model(real)
        for domain, (made, back, same) in images.items():
            losses[f"{domain}/adversarial"] = self.adversaries[domain].generator_loss(made, real[domain])
            losses[f"{domain}/cycle"] = options.cycle_weight * l1_loss(back, real[OTHER[domain]])
            losses[f"{domain}/identity"] = options.identity_weight * l1_loss(same, real[domain])
        self.accelerator.backward(torch.stack(list(losses.values())).sum())
        self.guard.step(**losses)
        self.scheduler.step()
        self.optimizer.zero_grad()
        numbers = {name: float(loss.detach()) for name, loss in losses.items()}
        for domain, (made, _, _) in images.items():
            report = self.adversaries[domain].discriminator_step(real[domain], self.pools[domain](made))
            numbers |= {f"{domain}/{name}": value for name, value in report.as_dict().items() if name != "step"}
        self.step_count += 1
        return {"step": self.step_count, **numbers}

    def state(self) -> advloss.TrainingState:
        """Everything that the next step depends on."""
        shared = {"model": self.cycle, "optimizer": self.optimizer, "scheduler": self.scheduler, "guard": self.guard}
        shared |= {f"adversary {domain}": adversary for domain, adversary in self.adversaries.items()}
        own = {f"pool {domain}": pool for domain, pool in self.pools.items()}
        own |= {"batches": self.batches}
        return advloss.TrainingState(shared, own, accelerator=self.accelerator)


def main() -> int:
    options = parse()
    accelerator = Accelerator(cpu=options.cpu)
    if accelerator.device.type == "cpu":
        torch.set_flush_denormal(True)  # small GANs are several times slower with denormal numbers
    set_seed(options.seed, device_specific=True)
    began = time.perf_counter(), time.process_time()
    game = CycleGAN(options, accelerator)
    checkpoints = advloss.Checkpoints(options.out / "checkpoints", accelerator=accelerator)
    if options.resume:
        game.step_count = game.state().load(checkpoints.newest())["step"]
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        advloss.interruptible(accelerator) as asked_to_stop,
        advloss.open_step_log(options.out / "log.jsonl", game.step_count) as log,
        tqdm(total=options.steps, initial=game.step_count, desc="cyclegan", file=sys.stdout) as bar,
    ):
        while game.step_count < options.steps and not asked_to_stop():
            log.write(json.dumps(game.step()) + "\n")
            bar.update()
            if game.step_count % options.save_every == 0 or game.step_count == options.steps:
                save(game, checkpoints)
        if asked_to_stop.exit_status:
            save(game, checkpoints)
            accelerator.end_training()
            return asked_to_stop.exit_status
    finish(game.cycle.eval(), options, began)
    accelerator.end_training()
    return 0


def save(game: CycleGAN, checkpoints: advloss.Checkpoints) -> None:
    with checkpoints.write(game.step_count) as folder:
        game.state().save(folder, step=game.step_count)


@torch.no_grad()
def finish(cycle: Cycle, options: argparse.Namespace, began: tuple[float, float]) -> None:
    """Measure on photographs whose true old prints are known, and draw."""
    pairs, rows = DegradedPairs(photographs()[1], OldPrint()), []
    distances = {"unchanged": 0.0, "to old": 0.0, "to new": 0.0}
    device = next(cycle.parameters()).device
    for old, new in (pairs[i] for i in range(len(pairs))):
        made = {
            "to old": cycle.generators["old"](new[None].to(device))[0].clamp(-1, 1).cpu(),
            "to new": cycle.generators["new"](old[None].to(device))[0].clamp(-1, 1).cpu(),
        }
        distances["unchanged"] += float(l1_loss(new, old)) / len(pairs)
        distances["to old"] += float(l1_loss(made["to old"], old)) / len(pairs)
        distances["to new"] += float(l1_loss(made["to new"], new)) / len(pairs)
        rows.append({"made old": made["to old"], "true old": old, "made new": made["to new"], "photograph": new})
    save_comparison(options.out / "comparison.png", rows, window=96, enlarge=3)
    save_weights(cycle, options.out / "cyclegan.safetensors", phase="adversarial")
    shares = {name: distances[name] / distances["unchanged"] for name in ("to old", "to new")}
    seconds, processor = time.perf_counter() - began[0], time.process_time() - began[1]
    run = {"seconds": seconds, "processor_seconds": processor, "seed": options.seed, "steps": options.steps}
    holds = max(shares.values()) < 0.5
    metrics = {"distance": distances, "share": shares, "stated": {"holds": holds}, "run": run}
    (options.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(", ".join(f"distance {name}: {value:.3f}" for name, value in distances.items()))
    print(f"as stated: {holds}; everything is in {options.out}; it took {seconds:.0f} s")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/cyclegan"), help="folder for everything (default: %(default)s)")
    add("--resume", action="store_true", help="go on from the newest checkpoint in --out")
    add("--seed", type=int, default=0)
    add("--steps", type=int, default=1500, help="(default: %(default)s)")
    add("--cycle-weight", type=float, default=3.0, help="(default: %(default)s)")
    add("--identity-weight", type=float, default=0.5, help="(default: %(default)s)")
    add("--side", type=int, default=24, help="of training crops (default: %(default)s)")
    add("--batch", type=int, default=8, help="crops in a batch of each domain (default: %(default)s)")
    add("--lr", type=float, default=2e-3, help="of the generators at first (default: %(default)s)")
    add("--discriminator-lr", type=float, default=1e-3, help="at first (default: %(default)s)")
    add("--save-every", type=int, default=200, help="steps between checkpoints (default: %(default)s)")
    add("--cpu", action="store_true", help="do not use an accelerator")
    options = parser.parse_args()
    for name in ("steps", "side", "batch", "save_every"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (advloss.AdvlossError, OSError) as error:
        sys.exit(f"train_cyclegan.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
