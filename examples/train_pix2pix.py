"""pix2pix on embedded photographs: from edges and blocks of colour to a picture.

A network is given a photograph's edges, drawn on blocks of its mean colours, and paints the photograph. Two copies learn it
for as many steps: one by L1 alone, and one by pix2pix's objective, L1 and a discriminator that sees what was given together with
the picture. L1 answers with the mean of all that could have been there, which is flat. The aim, stated beforehand, for
photographs that neither has seen: with L1 alone the energy at high frequencies is below 0.3 of the photographs', with the
discriminator it is 0.6 to 1.4 of it, on two CPU cores in less than 5 minutes. metrics.json says whether a run has reached it;
docs/superres.md says which have.

    pip install 'advloss[superres]'
    python examples/train_pix2pix.py
    python examples/train_pix2pix.py --resume                         # go on after Ctrl-C

Everything is written to one folder (--out): weights, metrics.json, log.jsonl, comparison.png. For pairs of your own put
`PairedCrops(FolderPairs(inputs, outputs, scale=1), scale=1, side=64)` in the place of `crops`.
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
from skimage.feature import canny
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, pad
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import advloss
from advloss_superres import (
    Objective,
    PairedCrops,
    Phase,
    PhasedTraining,
    Progress,
    ResidualNetwork,
    WholePairs,
    evaluate,
    photographs,
    save_comparison,
    save_weights,
)

BLOCK = 8  # pixels, side of a block of one colour
L1 = "L1 alone"
GAN = "pix2pix"


def main() -> int:
    options = parse()
    accelerator = Accelerator(cpu=options.cpu)
    if accelerator.device.type == "cpu":
        torch.set_flush_denormal(True)  # small GANs are several times slower with denormal numbers
    began = time.perf_counter(), time.process_time()
    training, held_out = ([(drawing(image), image) for image in map(shrink, images)] for images in photographs())
    crops = PairedCrops(training, scale=1, side=options.side, crops=2048 // len(training))
    pairs = WholePairs(held_out)
    options.out.mkdir(parents=True, exist_ok=True)
    networks = {}
    for name in (L1, GAN):
        set_seed(options.seed)
        phase = make_phase(name, crops, options)
        training = PhasedTraining(ResidualNetwork(1, depth=4), [phase], accelerator=accelerator, ema_decay=0.995)
        file = name.replace(" ", "-").lower()
        checkpoints = options.out / "checkpoints" / file
        if options.resume and (name == L1 or any(checkpoints.glob("step-*"))):
            training.load(checkpoints)
        if training.step_count < options.steps and not run(training, checkpoints, options):
            accelerator.end_training()
            return training.exit_status
        networks[name] = training.averaged_model()
        save_weights(networks[name], options.out / f"{file}.safetensors", phase=name)
    finish(networks, pairs, options, began)
    accelerator.end_training()
    return 0


def shrink(image: Tensor) -> Tensor:
    """uint8 `(3, H, W)` at a third of its size: whole things fit into a crop."""
    return avg_pool2d(image.float(), 3).round().to(torch.uint8)


def drawing(image: Tensor) -> Tensor:
    """uint8 `(3, H, W)`: black where Canny's detector sees an edge of brightness, elsewhere the mean colour of a block."""
    found = torch.from_numpy(canny(image.float().mean(0).numpy() / 255, sigma=1.0))
    colours = avg_pool2d(image.float(), BLOCK, ceil_mode=True).round().to(torch.uint8)
    blocks = colours.repeat_interleave(BLOCK, 1).repeat_interleave(BLOCK, 2)
    return blocks[:, : image.shape[1], : image.shape[2]].masked_fill(found, 0)


@advloss.register_discriminator(
    "with-detail", conditions=("image",), summary="A conditional PatchGAN that sees detail enlarged."
)
class WithDetail(nn.Module):
    """The paper's conditional PatchGAN, with a smaller field of view and without norm. Beside the picture it sees what a
    blur of 3 x 3 pixels takes from it, enlarged: detail is small beside brightness and colour."""

    def __init__(self, gain: float = 4.0) -> None:
        super().__init__()
        self.gain = gain
        self.patch = advloss.create_discriminator(
            "patch", in_channels=6, condition_channels=3, width=32, depth=2, norm="none"
        )

    def forward(self, samples: Tensor, condition: Tensor) -> Tensor:
        blurred = avg_pool2d(pad(samples, (1, 1, 1, 1), mode="reflect"), 3, 1)
        return self.patch(torch.cat([samples, self.gain * (samples - blurred)], 1), condition)


def make_phase(name: str, crops: Dataset, options: argparse.Namespace) -> Phase:
    """Both learn alike, but for the adversary."""
    adam = functools.partial(torch.optim.Adam, lr=options.lr, betas=(0.5, 0.99), fused=True)
    cosine = functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=options.steps, eta_min=options.lr / 10)
    objective = Objective()
    if name == GAN:
        adversary = advloss.Adversary(
            "with-detail",
            regularizers={"r1": {"weight": 0.003, "every": 4}},
            optimizer=adam,
            scheduler=cosine,
            weight=1 / options.l1_weight,
            seed=options.seed,  # both networks begin alike, and see the same crops
        )
        objective = Objective(adversary, conditional=True)
    return Phase(
        name=name,
        objective=objective,
        batches=DataLoader(crops, options.batch, shuffle=True, drop_last=True),
        steps=options.steps,
        optimizer=adam,
        scheduler=cosine,
    )


def run(training: PhasedTraining, checkpoints: Path, options: argparse.Namespace) -> bool:
    """Train, with a progress bar and a log line for every step. Returns False after Ctrl-C or SIGTERM."""
    name, done = training.phase.name, training.step_count
    before = 0 if name == L1 else options.steps  # lines of the other network
    with (
        advloss.open_step_log(options.out / "log.jsonl", before + done) as log,
        tqdm(total=options.steps, initial=done, desc=name, file=sys.stdout) as bar,
    ):

        def on_progress(progress: Progress) -> None:
            log.write(json.dumps({"phase": progress.phase, **progress.as_dict()}) + "\n")
            bar.update()

        return training.run(on_progress, checkpoints=checkpoints, save_every=options.save_every)


def finish(networks: dict[str, nn.Module], pairs: Dataset, options: argparse.Namespace, began: tuple) -> None:
    """Measure and draw."""
    rows, metrics = [], {}
    for given, photograph in (pairs[i] for i in range(len(pairs))):
        painted = {name: paint(network, given[None])[0] for name, network in networks.items()}
        rows.append({"drawing": given, **painted, "photograph": photograph})
    save_comparison(options.out / "comparison.png", rows, window=64, enlarge=4)
    for name, network in networks.items():
        metrics[name] = evaluate(
            functools.partial(paint, network), (pairs[i] for i in range(len(pairs))), border=8
        ).as_dict()
    shares = [metrics[name]["high_frequency"] for name in (L1, GAN)]
    seconds, processor = time.perf_counter() - began[0], time.process_time() - began[1]
    metrics["run"] = {"seconds": seconds, "processor_seconds": processor, "seed": options.seed, "steps": options.steps}
    metrics["stated"] = {"holds": shares[0] < 0.3 and 0.6 <= shares[1] <= 1.4}
    (options.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    for name in networks:
        print(f"{name:>10}: " + ", ".join(f"{key} {value:.3f}" for key, value in metrics[name].items()))
    print(f"as stated: {metrics['stated']['holds']}; everything is in {options.out}; it took {seconds:.0f} s")


@torch.no_grad()
def paint(network: nn.Module, given: Tensor) -> Tensor:
    device = next(network.parameters()).device
    return network(given.to(device)).clamp(-1, 1).cpu()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/pix2pix"), help="folder for everything (default: %(default)s)")
    add("--resume", action="store_true", help="go on from the newest checkpoint in --out")
    add("--seed", type=int, default=0)
    add("--steps", type=int, default=900, help="of each of the two networks (default: %(default)s)")
    add("--l1-weight", type=float, default=5.0, help="of L1, where the adversary has 1 (default: %(default)s)")
    add("--side", type=int, default=32, help="of training crops (default: %(default)s)")
    add("--batch", type=int, default=8, help="crops in a batch (default: %(default)s)")
    add("--lr", type=float, default=1e-3, help="of both players at first (default: %(default)s)")
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
        sys.exit(f"train_pix2pix.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
