"""Train an autoencoder with an adversarial loss, and see what the loss is for.

Without arguments it runs on photographs that scikit-image and scikit-learn bring along, with no download: a small
AutoencoderDC learns random crops until the adversary begins. From there on one copy goes on without it and one with it,
for as many steps, and both are measured on photographs that neither was trained on.

    pip install 'advloss[autoencoder]'
    python examples/train_autoencoder.py
    python examples/train_autoencoder.py --resume                     # go on after Ctrl-C
    python examples/train_autoencoder.py --images my/folder --model stabilityai/sd-vae-ft-mse --decoder-only --side 256
    python examples/train_autoencoder.py --discriminator patch --loss hinge --regularizer lecam:weight=0.05
    torchrun --nproc_per_node 2 examples/train_autoencoder.py

Everything is written to one folder (--out): the model in diffusers' format, metrics.json, log.jsonl, comparison.png, and
the same figures and pictures on the way (validation.jsonl, validation/).
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import AutoencoderDC, AutoModel
from torch import Tensor, nn
from torch.utils.data import DataLoader
from tqdm import tqdm

import advloss
from advloss_autoencoder import (
    AutoencoderTraining,
    HeldOut,
    Images,
    Objective,
    Progress,
    RandomCrops,
    dataset_images,
    folder_images,
    freeze_encoder,
    last_layer,
    photographs,
    split,
    validate,
)

MULTIPLE = 32  # sides of whole images, for the downsampling of any usual autoencoder
R1 = "r1:weight=0.0001"
LARGEST = 1024  # side of an image that is measured


def main() -> int:
    options = parse()
    accelerator = Accelerator(cpu=options.cpu, mixed_precision=options.mixed_precision)
    if accelerator.device.type == "cpu":
        torch.set_flush_denormal(True)  # small GANs are several times slower with denormal numbers
    set_seed(options.seed, device_specific=True)
    began = time.perf_counter()
    images, unseen = load_images(options)
    held_out = list(HeldOut(unseen, MULTIPLE, LARGEST))  # a file that cannot be read shows now
    accelerator.print(f"{len(images)} images to train on, {len(held_out)} held out")
    training = make_training(images, options, accelerator, options.start_step)
    with torch.random.fork_rng(), torch.no_grad():  # a window that the model cannot take shows now
        training.autoencoder(torch.zeros(1, 3, options.shown, options.shown, device=accelerator.device))
    checkpoints, plain = options.out / "checkpoints", options.out / "without_adversary"
    if options.resume:
        training.load(checkpoints)

    if options.compare and training.step_count <= options.start_step:
        if not run(training, options.start_step, held_out, options):
            accelerator.end_training()
            return training.exit_status
        other = make_training(images, options, accelerator, start_step=options.steps, head_start=0)  # that is never
        other.load(checkpoints)
        with progress_bar(other, options.steps, "without adversary") as bar:
            if not other.run(options.steps, lambda progress: bar.update()):
                accelerator.end_training()
                return other.exit_status
        if accelerator.is_main_process:
            other.averaged_model().save_pretrained(plain)
        training.load(checkpoints)  # for the random numbers
    if not run(training, options.steps, held_out, options):
        accelerator.end_training()
        return training.exit_status

    if accelerator.is_main_process:
        model = training.averaged_model()
        model.save_pretrained(options.out / "model")
        models = {"with adversary": model}
        if options.compare:
            models = {"without": type(model).from_pretrained(plain).to(accelerator.device), **models}
        finish(models, held_out, options, time.perf_counter() - began)
    accelerator.end_training()
    return 0


def make_training(
    images: Images, options: argparse.Namespace, accelerator: Accelerator, start_step: int, head_start: int = 100
) -> AutoencoderTraining:
    """The autoencoder, its objective with the adversary, and crops to train on. The discriminator has a head start of
    some steps."""
    model = make_model(options)
    quantized = hasattr(model, "quantize")
    objective = Objective(
        make_adversary(options, start_step, head_start),
        last_layer(model),
        perceptual=advloss.load_lpips().to(accelerator.device) if options.lpips else None,
        regularization_weight=1.0 if quantized else 1e-6,  # VQGAN's, latent diffusion's
        ramp_steps=100,
        crop=options.crop,
    )
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=options.lr, betas=(0.9, 0.99), fused=True)
    crops = RandomCrops(images, options.side, crops=max(1, 1024 // len(images)))
    loader = DataLoader(crops, options.batch, shuffle=True, drop_last=True, num_workers=options.workers)
    return AutoencoderTraining(
        model,
        objective,
        loader,
        optimizer,
        cosine(optimizer, options.steps),
        accelerator=accelerator,
        ema_decay=options.ema_decay,
    )


def make_adversary(options: argparse.Namespace, start_step: int, head_start: int) -> advloss.Adversary:
    """By default the combination that measured best on the embedded photographs: each reconstruction against its own
    image, and enough R1 that the discriminator's slope says in which direction there is more detail."""
    return advloss.Adversary(
        options.discriminator,
        options.loss,
        options.regularizer,
        weight=options.weight,
        start_step=start_step,
        discriminator_start_step=max(0, start_step - head_start),
        optimizer=functools.partial(torch.optim.Adam, lr=options.discriminator_lr, betas=(0.0, 0.99), fused=True),
    )


def make_model(options: argparse.Namespace) -> nn.Module:
    """A pretrained autoencoder of diffusers, or a small new one."""
    if options.model:
        model: nn.Module = AutoModel.from_pretrained(options.model, subfolder=options.subfolder)
    else:
        widths, blocks = (32, 32), (0, 1)  # 2 x 2 pixels to 4 numbers; nothing is computed at full resolution
        model = AutoencoderDC(
            latent_channels=4,
            attention_head_dim=8,
            encoder_block_types="ResBlock",
            decoder_block_types="ResBlock",
            encoder_block_out_channels=widths,
            decoder_block_out_channels=widths,
            encoder_layers_per_block=blocks,
            decoder_layers_per_block=blocks,
            encoder_qkv_multiscales=((),) * 2,
            decoder_qkv_multiscales=((),) * 2,
        )
    return freeze_encoder(model) if options.decoder_only else model


def cosine(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """A short rise, then half a cosine down to a fiftieth."""

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / 50) * (0.51 + 0.49 * math.cos(math.pi * step / steps))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def run(training: AutoencoderTraining, steps: int, held_out: list[Tensor], options: argparse.Namespace) -> bool:
    """Train, with a progress bar, a log line for every step, and figures and a picture every now and then. Returns
    False after Ctrl-C or SIGTERM."""
    checkpoints, done, every = options.out / "checkpoints", training.step_count, options.validate_every
    if not training.accelerator.is_main_process:
        return training.run(steps, checkpoints=checkpoints, save_every=options.save_every)
    folder, lpips = options.out / "validation", lpips_for_figures()
    folder.mkdir(parents=True, exist_ok=True)
    with (
        advloss.open_step_log(options.out / "log.jsonl", done) as log,
        advloss.open_step_log(options.out / "validation.jsonl", done // every) as validation,
        progress_bar(training, steps, "autoencoder") as bar,
    ):

        def on_progress(progress: Progress) -> None:
            numbers, step = progress.as_dict(), progress.step
            about = {"about": training.adversary.describe()} if step == 1 else {}
            log.write(json.dumps({**numbers, **about}) + "\n")
            bar.update()
            bar.set_postfix(pixel=f"{numbers['pixel']:.3f}", refresh=False)
            if step % every == 0:
                model = {"reconstruction": training.averaged_model()}
                (figures,) = validate(model, held_out, folder / f"{step:08d}.png", lpips=lpips).values()
                validation.write(json.dumps({"step": step, **figures.as_dict()}) + "\n")

        return training.run(steps, on_progress, checkpoints=checkpoints, save_every=options.save_every)


def progress_bar(training: AutoencoderTraining, steps: int, title: str) -> tqdm:
    quiet = not training.accelerator.is_main_process
    return tqdm(total=steps, initial=training.step_count, desc=title, file=sys.stdout, disable=quiet)


def finish(models: dict[str, nn.Module], held_out: list[Tensor], options: argparse.Namespace, seconds: float) -> None:
    """The last figures and the picture."""
    picture = options.out / "comparison.png"
    figures = validate(models, held_out, picture, window=options.shown, lpips=lpips_for_figures())
    metrics = {name: row.as_dict() for name, row in figures.items()}
    metrics["run"] = {"seconds": seconds, "seed": options.seed, "steps": options.steps}
    (options.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    for name, row in figures.items():
        print(f"{name:>16}: " + ", ".join(f"{key} {value:.3f}" for key, value in row.as_dict().items()))
    print(f"everything is in {options.out}; it took {seconds:.0f} s")


def lpips_for_figures() -> nn.Module | None:
    """LPIPS where it is on this machine."""
    try:
        return advloss.load_lpips("alex")
    except advloss.OptionError:
        return None


def load_images(options: argparse.Namespace) -> tuple[Images, Images]:
    """Images to train on, and images held out."""
    if options.images:
        return split(folder_images(options.images), options.held_out)
    if options.dataset:
        return split(dataset_images(options.dataset, options.split, options.column), options.held_out)
    return photographs()


def component(text: str) -> tuple[Any, dict[str, Any]]:
    """A name or a class of the user's own, with options."""
    try:
        return advloss.parse_component(text)
    except advloss.AdvlossError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/autoencoder"), help="folder for everything (default: %(default)s)")
    add("--resume", action="store_true", help="go on from the newest checkpoint in --out")
    add("--seed", type=int, default=0)
    add("--images", type=Path, help="folder of images (default: embedded photographs)")
    add("--dataset", help="name of a Hugging Face data set")
    add("--split", default="train", help="of the data set (default: %(default)s)")
    add("--column", default="image", help="of the data set that holds the images (default: %(default)s)")
    add("--held-out", type=int, default=8, help="images held out of a folder or data set (default: %(default)s)")
    add(
        "--model",
        help="name or folder of a pretrained autoencoder of diffusers to go on from (default: a small new one)",
    )
    add("--subfolder", help="of --model, such as vae")
    add("--decoder-only", action="store_true", help="keep the encoder, and with it the latents, as they are")
    add(
        "--lpips",
        action="store_true",
        help="add LPIPS to the objective (needs its weights; figures have it wherever those are)",
    )
    add("--steps", type=int, default=3000, help="of the autoencoder (default: %(default)s)")
    add("--start-step", type=int, default=1500, help="step in which the adversary begins (default: %(default)s)")
    named = {"type": component, "metavar": "NAME[:OPTION=VALUE,...]"}
    add("--discriminator", default="detail", help="(default: %(default)s)", **named)
    add("--loss", default="relativistic", help="(default: %(default)s)", **named)
    add("--regularizer", nargs="*", help=f"any number of them (default: {R1})", **named)
    add("--weight", type=float, default=2.7, help="of the adversary, times the adaptive weight (default: %(default)s)")
    add("--side", type=int, default=32, help="of training crops (default: %(default)s)")
    add("--crop", type=int, help="side of the window that the adversary sees of them (default: all)")
    add("--batch", type=int, default=8, help="crops in a batch, for each process (default: %(default)s)")
    add("--lr", type=float, help="of the autoencoder (default: 2e-3; 1e-5 for a pretrained --model)")
    add("--discriminator-lr", type=float, default=5e-4, help="(default: %(default)s)")
    add("--ema-decay", type=float, default=0.99, help="of the averaged autoencoder (default: %(default)s)")
    add("--no-compare", dest="compare", action="store_false", help="do not train a copy without the adversary")
    add("--shown", type=int, default=128, help="side of the windows in the picture (default: %(default)s)")
    add("--validate-every", type=int, default=1000, help="steps between pictures (default: %(default)s)")
    add("--save-every", type=int, default=500, help="steps between checkpoints (default: %(default)s)")
    add("--workers", type=int, default=0, help="processes that load images (default: %(default)s)")
    add("--mixed-precision", choices=("no", "bf16", "fp16"), default="no")
    add("--cpu", action="store_true", help="do not use an accelerator")
    options = parser.parse_args()
    if options.lr is None:  # diffusers fine-tunes sd-vae-ft-mse with 4.5e-6 (examples/research_projects/autoencoderkl)
        options.lr = 1e-5 if options.model else 2e-3
    if options.regularizer is None:
        options.regularizer = [component(R1)]
    for name in (
        "steps",
        "side",
        "batch",
        "held_out",
        "shown",
        "save_every",
        "validate_every",
        "lr",
        "discriminator_lr",
    ):
        if not getattr(options, name) > 0:
            parser.error(f"--{name.replace('_', '-')} must be above 0")
    if not 0 <= options.start_step < options.steps:
        parser.error(f"--start-step {options.start_step} is not within --steps {options.steps}: give one that is")
    return options


if __name__ == "__main__":
    try:
        sys.exit(main())
    except (advloss.AdvlossError, OSError) as error:
        sys.exit(f"train_autoencoder.py: {error}")
    except KeyboardInterrupt:
        sys.exit(130)
