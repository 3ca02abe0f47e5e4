"""Train a super-resolution network, first on pixels and then with an adversarial loss, and see what the loss is for.

Without arguments it runs on photographs that scikit-image and scikit-learn bring along, with no download: a small residual
network learns to enlarge twice (the PSNR phase), then goes on with an adversary, and both are measured on photographs
that neither has seen.

    pip install 'advloss[superres]'
    python examples/train_superres.py
    python examples/train_superres.py --resume                        # go on after Ctrl-C
    python examples/train_superres.py --alpha 0.7                     # between the two phases' weights
    python examples/train_superres.py --images my/folder --scale 4 --network rrdb --adversary real-esrgan --degradation real-esrgan
    python examples/train_superres.py --images my/high --low my/low   # real pairs
    torchrun --nproc_per_node 2 examples/train_superres.py

Everything is written to one folder (--out): weights of both phases, metrics.json, log.jsonl, comparison.png.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

import advloss
from advloss_superres import (
    Bicubic,
    DegradedCrops,
    DegradedPairs,
    FolderImages,
    FolderPairs,
    MultiScale,
    Objective,
    PairedCrops,
    Phase,
    PhasedTraining,
    Progress,
    ResidualNetwork,
    RRDBNetwork,
    SecondOrder,
    WholePairs,
    describe_skipped,
    enlarge,
    evaluate,
    export_onnx,
    interpolate_weights,
    load_published,
    load_weights,
    photographs,
    reach,
    read_weights,
    restore,
    save_comparison,
    save_weights,
    split,
)

DEGRADATIONS = {"bicubic": Bicubic, "real-esrgan": SecondOrder}
WINDOW = 16  # pixels; tiles are cut at its multiples, where windows of transformers begin (8 in SwinIR, 16 in HAT)


def main() -> int:
    options = parse()
    accelerator = Accelerator(cpu=options.cpu, mixed_precision=options.mixed_precision)
    if accelerator.device.type == "cpu":
        torch.set_flush_denormal(True)  # small GANs are several times slower with denormal numbers
    set_seed(options.seed, device_specific=True)
    began = time.perf_counter(), time.process_time()
    crops, pairs = load_data(options, accelerator)
    model = make_network(options)
    follows = load_weights(model, options.init) if options.init else None
    first = {} if follows is None else {name_of_first(follows, options): read_weights(options.init)[0]}
    distances = {"lpips": advloss.load_lpips("alex")} if options.lpips else {}
    if options.onnx and accelerator.is_main_process:
        with tempfile.TemporaryDirectory() as folder:
            export_onnx(model, Path(folder) / "trial.onnx")  # what is missing shows now, and not after the training
    training = PhasedTraining(
        model,
        make_phases(crops, options),
        accelerator=accelerator,
        follows=follows,
        ema_decay=options.ema_decay,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    if options.resume:
        training.load(options.out / "checkpoints")
    if not run(training, options):
        accelerator.end_training()
        return training.exit_status
    if accelerator.is_main_process:
        finish(training, pairs, first, distances, options, began)
    accelerator.end_training()
    return 0


def make_phases(crops: Dataset, options: argparse.Namespace) -> list[Phase]:
    """The PSNR phase, the adversarial one, or both."""
    makers = {"psnr": [psnr_phase], "adversarial": [adversarial_phase], "both": [psnr_phase, adversarial_phase]}
    batches = functools.partial(
        DataLoader, crops, options.batch, shuffle=True, drop_last=True, num_workers=options.workers
    )
    return [make(batches(), options) for make in makers[options.phase]]


def psnr_phase(batches: DataLoader, options: argparse.Namespace) -> Phase:
    return Phase(
        name="psnr",
        objective=Objective(pixel=options.pixel),
        batches=batches,
        steps=options.psnr_steps,
        optimizer=functools.partial(torch.optim.Adam, lr=options.lr, betas=(0.9, 0.99), fused=True),
        scheduler=cosine(options.psnr_steps),
    )


def adversarial_phase(batches: DataLoader, options: argparse.Namespace) -> Phase:
    objective = Objective(
        make_adversary(options),
        pixel=options.pixel,
        pixel_weight=options.pixel_weight,
        perceptual=advloss.load_lpips() if options.lpips else None,
        feature_matching=options.feature_matching,
    )
    return Phase(
        name="adversarial",
        objective=objective,
        batches=batches,
        steps=options.adversarial_steps,
        optimizer=functools.partial(torch.optim.Adam, lr=options.adversarial_lr, betas=(0.9, 0.99), fused=True),
        scheduler=cosine(options.adversarial_steps),
    )


def cosine(steps: int) -> Callable[[torch.optim.Optimizer], torch.optim.lr_scheduler.LambdaLR]:
    """A short rise, then half a cosine down to a tenth."""

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / 50) * (0.55 + 0.45 * math.cos(math.pi * step / steps))

    return lambda optimizer: torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def make_adversary(options: argparse.Namespace) -> advloss.Adversary:
    """By a name of the command line: what measured best on the embedded photographs, or a paper's."""
    adam = functools.partial(torch.optim.Adam, lr=options.discriminator_lr, betas=(0.0, 0.99), fused=True)
    chosen = {"reuse_real": True}  # both turns are on the same originals, and nothing is changed between them
    if options.weight is not None:
        chosen["weight"] = options.weight
    if options.adversary == "esrgan":
        return advloss.Adversary.from_recipe("esrgan", resolution=options.side, **chosen)
    if options.adversary == "real-esrgan":
        return advloss.Adversary.from_recipe("real-esrgan", **chosen)
    if options.adversary == "relativistic":
        slopes = {"r1": {"weight": 1.0}, "r2": {"weight": 1.0}}
        discriminator = ("patch", {"norm": "none", "depth": 2})
        return advloss.Adversary(discriminator, "relativistic", slopes, optimizer=adam, **{"weight": 0.1, **chosen})
    slope = {"r1": {"weight": options.r1}}
    return advloss.Adversary("detail", "relativistic", slope, optimizer=adam, **{"weight": 0.8, **chosen})


def make_network(options: argparse.Namespace) -> nn.Module:
    """A reference network, or published weights."""
    if options.network == "residual":
        return ResidualNetwork(options.scale)
    if options.network == "rrdb":
        return RRDBNetwork(options.scale)
    model = load_published(Path(options.network))
    if model.scale != options.scale:
        raise advloss.OptionError(f"{options.network} enlarges {model.scale} times: give --scale {model.scale}")
    return model


def load_data(options: argparse.Namespace, accelerator: Accelerator):
    """Crops to train on, and whole pairs held out: other images."""
    if options.low:
        found = FolderPairs(options.low, options.images, options.scale, smallest=options.side)
        training, held_out = split(found, options.held_out)
        crops = PairedCrops(training, options.scale, options.side, crops=per_image(training))
        pairs = WholePairs(held_out)
    else:
        found = FolderImages(options.images, smallest=options.side) if options.images else None
        training, held_out = split(found, options.held_out) if found else photographs()
        degradation = DEGRADATIONS[options.degradation](options.scale)
        scales = MultiScale(training, smallest=options.side)
        sizes = scales if options.images else [scales[number] for number in range(len(scales))]
        crops = DegradedCrops(sizes, degradation, options.side, crops=per_image(sizes))
        pairs = DegradedPairs(held_out, degradation)
    accelerator.print(f"{len(training)} images to train on, {len(held_out)} held out")
    if found is not None and found.skipped:
        accelerator.print(describe_skipped(found.skipped))
    return crops, pairs


def per_image(images) -> int:
    """Crops of each image in a pass, so that a pass is no shorter than about a thousand."""
    return max(1, 1024 // len(images))


def run(training: PhasedTraining, options: argparse.Namespace) -> bool:
    """Train, with a progress bar and a log line for every step. Returns False after Ctrl-C or SIGTERM."""
    main_process = training.accelerator.is_main_process
    steps = sum(phase.steps for phase in training.phases)
    done = training.step_count
    log_file = options.out / "log.jsonl"
    with (
        advloss.open_step_log(log_file, done) if main_process else nullcontext() as log,
        tqdm(total=steps, initial=done, file=sys.stdout, disable=not main_process) as bar,
    ):

        def on_progress(progress: Progress) -> None:
            if log is not None:
                numbers = progress.as_dict()
                log.write(json.dumps({"phase": progress.phase, **numbers}) + "\n")
                bar.update()
                bar.set_description(progress.phase, refresh=False)
                bar.set_postfix(pixel=f"{numbers['pixel']:.3f}", refresh=False)

        def on_phase_end(phase: Phase, averaged: nn.Module) -> None:
            if main_process:
                about = {"network": options.network, "scale": options.scale}
                save_weights(averaged, options.out / f"{phase.name}.safetensors", phase=phase.name, **about)

        folder = options.out / "checkpoints"
        return training.run(on_progress, on_phase_end, checkpoints=folder, save_every=options.save_every)


def name_of_first(follows: str, options: argparse.Namespace) -> str:
    """What the weights of --init are called in picture and metrics: by the phase that the file says."""
    if options.alpha is not None and follows != "psnr":
        raise advloss.OptionError(
            f"--alpha begins at the weights of a PSNR phase, and {options.init} holds those of {follows!r}"
        )
    return follows if follows == "psnr" else f"before ({follows})"


def finish(
    training: PhasedTraining,
    pairs: Dataset,
    first: dict[str, dict[str, Tensor]],
    distances: dict[str, nn.Module],
    options: argparse.Namespace,
    began: tuple[float, float],
) -> None:
    """Measure the weights of every phase, draw, and write the last network alone."""
    model, device = training.model.eval(), training.accelerator.device
    files = {phase.name: options.out / f"{phase.name}.safetensors" for phase in training.phases}
    weights = {"bicubic": None, **first, **{name: read_weights(path)[0] for name, path in files.items()}}
    if options.alpha is not None:
        mixed = interpolate_weights(weights["psnr"], weights["adversarial"], options.alpha)
        weights[f"alpha {options.alpha:g}"] = mixed
    distances = {name: network.to(device) for name, network in distances.items()}
    shown = [{"low": pairs[number][0]} for number in range(min(len(pairs), options.shown))]
    metrics = {}
    for name, tensors in weights.items():
        if tensors is not None:
            model.load_state_dict(tensors)
        make = maker(model if tensors is not None else None, options)
        ordered = (pairs[number] for number in range(len(pairs)))
        figures = evaluate(make, ordered, border=options.scale, distances=distances, device=device)
        metrics[name] = figures.as_dict()
        for row in shown:
            row[name] = make(row["low"][None].to(device))[0].cpu()
    scenes = [{**row, "truth": pairs[number][1]} for number, row in enumerate(shown)]
    window = min(options.window, *(side for scene in scenes for side in scene["truth"].shape[1:]))
    save_comparison(options.out / "comparison.png", scenes, window)
    if options.alpha is not None:
        save_weights(model, options.out / "interpolated.safetensors", phase="interpolated", alpha=options.alpha)
    if options.onnx:
        export_onnx(model, options.out / "network.onnx")
    for name, row in metrics.items():
        print(f"{name:>12}: " + ", ".join(f"{key} {value:.3f}" for key, value in row.items()))
    seconds, processor = time.perf_counter() - began[0], time.process_time() - began[1]
    metrics["run"] = {"seconds": seconds, "processor_seconds": processor, "seed": options.seed}
    (options.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    print(f"everything is in {options.out}; it took {seconds:.0f} s")


def maker(model: nn.Module | None, options: argparse.Namespace) -> Callable[[Tensor], Tensor]:
    """What makes images: a network, in tiles where they are large, or bicubic interpolation."""
    if model is None:
        return functools.partial(enlarge, scale=options.scale)
    overlap = (reach(model) // WINDOW + 2) * WINDOW  # with it there are no seams
    return lambda low: restore(model, low, tile=options.tile, overlap=overlap).clamp(-1, 1)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/superres"), help="folder for everything (default: %(default)s)")
    add("--resume", action="store_true", help="go on from the newest checkpoint in --out")
    add("--seed", type=int, default=0)
    add("--images", type=Path, help="folder of images (default: embedded photographs)")
    add("--low", type=Path, help="folder of their real low-resolution partners, by the same names")
    add("--held-out", type=int, default=8, help="images held out of a folder (default: %(default)s)")
    add("--degradation", choices=tuple(DEGRADATIONS), default="bicubic", help="without --low (default: %(default)s)")
    add("--scale", type=int, default=2, help="(default: %(default)s)")
    add(
        "--network",
        default="residual",
        help="residual, rrdb, or a file of published weights to go on from (default: %(default)s)",
    )
    add("--phase", choices=("both", "psnr", "adversarial"), default="both", help="(default: %(default)s)")
    add("--init", type=Path, help="weights of an earlier phase to begin with")
    add("--psnr-steps", type=int, default=600, help="(default: %(default)s)")
    add("--adversarial-steps", type=int, default=500, help="(default: %(default)s)")
    add("--pixel", choices=("l1", "l2", "charbonnier"), default="l1", help="(default: %(default)s)")
    add("--pixel-weight", type=float, default=1.0, help="in the adversarial phase (default: %(default)s)")
    add("--adversary", choices=("detail", "esrgan", "real-esrgan", "relativistic"), default="detail")
    add("--weight", type=float, help="of the adversary (default: its own)")
    add("--r1", type=float, default=1e-4, help="of the detail adversary (default: %(default)s)")
    add("--feature-matching", type=float, default=0.0, help="weight of feature matching (default: %(default)s)")
    add("--lpips", action="store_true", help="add LPIPS to objective and metrics (needs its weights)")
    add("--alpha", type=float, help="also measure and keep the weights between the phases: 0 psnr, 1 adversarial")
    add("--side", type=int, help="of the originals' crops (default: 48; 64 for esrgan, which asks for a power of two)")
    add("--batch", type=int, default=8, help="crops in a batch, for each process (default: %(default)s)")
    add("--lr", type=float, default=2e-3, help="of the PSNR phase (default: %(default)s)")
    add("--adversarial-lr", type=float, default=5e-4, help="of the network after it (default: %(default)s)")
    add("--discriminator-lr", type=float, default=5e-4, help="(default: %(default)s)")
    add("--ema-decay", type=float, default=0.99, help="of the averaged network (default: %(default)s)")
    add("--tile", type=int, default=256, help="side of tiles of large images, low-resolution (default: %(default)s)")
    add("--onnx", action="store_true", help="also write the network alone as ONNX")
    add("--shown", type=int, default=3, help="images in the picture (default: %(default)s)")
    add("--window", type=int, default=64, help="side of the enlarged part in it (default: %(default)s)")
    add("--save-every", type=int, default=500, help="steps between checkpoints (default: %(default)s)")
    add("--workers", type=int, default=0, help="processes that load images (default: %(default)s)")
    add("--mixed-precision", choices=("no", "bf16", "fp16"), default="no")
    add("--cpu", action="store_true", help="do not use an accelerator")
    options = parser.parse_args()
    if options.side is None:
        options.side = 64 if options.adversary == "esrgan" else 48
    for name in ("psnr_steps", "adversarial_steps", "side", "batch", "held_out", "shown", "window", "save_every"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    if options.tile < 1 or options.tile % WINDOW:
        parser.error(f"--tile {options.tile}: give a multiple of {WINDOW}")
    if options.low and not options.images:
        parser.error("--low needs --images, the folder of the originals")
    if (
        options.adversary == "esrgan"
        and options.phase != "psnr"
        and (options.side % options.scale or options.scale == 3)
    ):
        parser.error(
            f"--adversary esrgan judges crops whose side is a power of two, which --scale {options.scale} does not divide: "
            "give --adversary real-esrgan, or another scale"
        )
    written = [
        options.out / f"{name}.safetensors" for name in ("psnr", "adversarial") if options.phase in ("both", name)
    ]
    if options.init and options.init.resolve() in [path.resolve() for path in written]:
        parser.error(f"--init {options.init} would be written over by this run: give another --out")
    if options.phase == "adversarial" and not options.init and options.network in ("residual", "rrdb"):
        parser.error("--phase adversarial begins with the weights of a PSNR phase: give them as --init")
    one_end = options.phase == "psnr" or (options.phase == "adversarial" and not options.init)
    if options.alpha is not None and (one_end or not 0 <= options.alpha <= 1):
        parser.error(
            "--alpha is from 0 to 1, and lies between two phases: give --phase both, or adversarial with --init"
        )
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (advloss.AdvlossError, OSError) as error:
        sys.exit(f"train_superres.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
