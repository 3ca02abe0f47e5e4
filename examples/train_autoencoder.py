"""Train an autoencoder with an adversarial loss, and see what the loss is for.

Without arguments it runs on photographs that scikit-image and scikit-learn bring along, with no download: a small
AutoencoderDC learns random crops until the adversary begins. From there on one copy goes on without it and one with it,
for as many steps, and both are measured on photographs that neither was trained on.

    pip install 'advloss[autoencoder]'
    python examples/train_autoencoder.py
    python examples/train_autoencoder.py --resume                     # go on after Ctrl-C
    python examples/train_autoencoder.py --images my/folder --model stabilityai/sd-vae-ft-mse --decoder-only
    torchrun --nproc_per_node 2 examples/train_autoencoder.py

Everything is written to one folder (--out): the model in diffusers' format, metrics.json, log.jsonl, comparison.png.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import math
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from diffusers import AutoencoderDC, AutoModel
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.data import DataLoader
from tqdm import tqdm

import advloss
from advloss_autoencoder import (
    Autoencoder,
    AutoencoderTraining,
    HeldOut,
    Objective,
    Progress,
    RandomCrops,
    dataset_images,
    evaluate,
    folder_images,
    freeze_encoder,
    last_layer,
    load_lpips,
    photographs,
    save_comparison,
    split,
)

MULTIPLE = 32  # sides of whole images, for the downsampling of any usual autoencoder


def main() -> int:
    options = parse()
    accelerator = Accelerator(cpu=options.cpu, mixed_precision=options.mixed_precision)
    if accelerator.device.type == "cpu":
        torch.set_flush_denormal(True)  # small GANs are several times slower with denormal numbers
    set_seed(options.seed, device_specific=True)
    began = time.perf_counter()
    images, held_out = load_images(options)
    crops = RandomCrops(images, options.side, crops=max(1, 1024 // len(images)))
    training = make_training(crops, options, accelerator)
    if options.resume:
        training.load(options.out / "checkpoints")
    accelerator.print(f"{len(images)} images to train on, {len(held_out)} held out")

    start = training.adversary.start_step
    plain = options.out / "without_adversary"
    if options.compare and training.step_count <= start:
        if not run(training, start, options):
            return training.exit_status
        if accelerator.is_main_process:
            train_plain(training, crops, options).save_pretrained(plain)
        accelerator.wait_for_everyone()
    if not run(training, options.steps, options):
        return training.exit_status

    if accelerator.is_main_process:
        model = training.averaged_model()
        model.save_pretrained(options.out / "model")
        models = {"with adversary": model}
        if options.compare:
            models = {"without": type(model).from_pretrained(plain).to(accelerator.device), **models}
        finish(models, HeldOut(held_out, MULTIPLE), options, time.perf_counter() - began)
    accelerator.end_training()
    return 0


def make_training(crops: RandomCrops, options: argparse.Namespace, accelerator: Accelerator) -> AutoencoderTraining:
    """The autoencoder, its adversary and its objective."""
    model = make_model(options)
    objective = Objective(
        make_adversary(options, options.start_step),
        last_layer(model),
        perceptual=load_lpips().to(accelerator.device) if options.lpips else None,
        ramp_steps=100,
        crop=options.crop,
    )
    optimizer = make_optimizer(model, options)
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


@advloss.register_discriminator("detail", summary="Judges what a blur of 3 x 3 pixels removes.")
class Detail(nn.Module):
    """A small PatchGAN on what a blur removes, enlarged: it says nothing about brightness and colour, which the
    reconstruction loss knows better, and detail is not small beside them."""

    def __init__(self, in_channels: int = 3, width: int = 32, gain: float = 4.0) -> None:
        super().__init__()
        self.in_channels, self.gain = in_channels, gain
        convolutions = (
            nn.Conv2d(in_channels, width, 4, 2, 1),
            nn.Conv2d(width, 2 * width, 4, 2, 1),
            nn.Conv2d(2 * width, 2 * width, 3, 1, 1),
            nn.Conv2d(2 * width, 1, 3, 1, 1),
        )
        normalized = [spectral_norm(convolution) for convolution in convolutions]
        self.layers = nn.Sequential(*[part for layer in normalized for part in (layer, nn.LeakyReLU(0.2))][:-1])

    def forward(self, samples: Tensor, condition: advloss.Condition | None = None) -> Tensor:
        blurred = functional.avg_pool2d(functional.pad(samples, (1, 1, 1, 1), mode="reflect"), 3, 1)
        return self.layers(self.gain * (samples - blurred))


def make_adversary(options: argparse.Namespace, start_step: int) -> advloss.Adversary:
    """The combination that measured best on the embedded photographs: each reconstruction against its own image, and
    enough R1 that the discriminator's slope says in which direction there is more detail."""
    return advloss.Adversary(
        "detail",
        loss="relativistic",
        regularizers={"r1": {"weight": 0.03, "every": 4}},
        weight=options.weight,
        start_step=start_step,
        discriminator_start_step=max(0, start_step - 100),
        optimizer=functools.partial(torch.optim.Adam, lr=options.discriminator_lr, betas=(0.0, 0.99), fused=True),
    )


def make_model(options: argparse.Namespace) -> nn.Module:
    """A pretrained autoencoder of diffusers, or a small new one."""
    if options.model:
        model: nn.Module = AutoModel.from_pretrained(options.model, subfolder=options.subfolder)
    else:
        widths, blocks = (48, 48), (0, 1)  # 2 x 2 pixels to 4 numbers; nothing is computed at full resolution
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


def make_optimizer(model: nn.Module, options: argparse.Namespace) -> torch.optim.Optimizer:
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.Adam(trained, lr=options.lr, betas=(0.9, 0.99), fused=True)


def cosine(optimizer: torch.optim.Optimizer, steps: int) -> torch.optim.lr_scheduler.LambdaLR:
    """A short rise, then half a cosine down to a tenth."""

    def factor(step: int) -> float:
        return min(1.0, (step + 1) / 50) * (0.55 + 0.45 * math.cos(math.pi * step / steps))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, factor)


def train_plain(training: AutoencoderTraining, crops: RandomCrops, options: argparse.Namespace) -> nn.Module:
    """A copy of what `training` has so far, trained on without its adversary until the last step."""
    model, ema = copy.deepcopy(training.model), copy.deepcopy(training.ema)
    optimizer = make_optimizer(model, options)
    optimizer.load_state_dict(training.optimizer.state_dict())
    scheduler = cosine(optimizer, options.steps)
    scheduler.load_state_dict(training.scheduler.state_dict())
    autoencoder, device = Autoencoder(model), training.accelerator.device
    never = Objective(make_adversary(options, options.steps + 1), perceptual=training.objective.perceptual)
    batches = advloss.EndlessBatches(DataLoader(crops, options.batch, shuffle=True, drop_last=True))
    with torch.random.fork_rng():
        for _ in tqdm(range(training.step_count, options.steps), desc="without adversary", file=sys.stdout):
            images = next(batches).to(device)
            never(autoencoder(images), images).total.backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            ema.step(model.parameters())
    ema.copy_to(model.parameters())
    return model


def run(training: AutoencoderTraining, steps: int, options: argparse.Namespace) -> bool:
    """Train, with a progress bar and a log line for every step. Returns False after Ctrl-C or SIGTERM."""
    main_process = training.accelerator.is_main_process
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        advloss.open_step_log(options.out / "log.jsonl", training.step_count) if main_process else nullcontext() as log,
        tqdm(
            total=steps, initial=training.step_count, desc="autoencoder", file=sys.stdout, disable=not main_process
        ) as bar,
    ):

        def on_progress(progress: Progress) -> None:
            if log is not None:
                numbers = progress.as_dict()
                about = {"about": training.adversary.describe()} if progress.step == 1 else {}
                log.write(json.dumps({**numbers, **about}) + "\n")
                bar.update()
                bar.set_postfix(pixel=f"{numbers['pixel']:.3f}", refresh=False)

        return training.run(steps, on_progress, checkpoints=options.out / "checkpoints", save_every=options.save_every)


def finish(models: dict[str, nn.Module], images: HeldOut, options: argparse.Namespace, seconds: float) -> None:
    """Measure and draw."""
    lpips = load_lpips("alex") if options.lpips else None
    figures = {}
    for name, model in models.items():
        device = next(model.parameters()).device
        figures[name] = evaluate(model, (images[i] for i in range(len(images))), lpips=lpips, device=device)
    windows = torch.stack([middle(images[i], options.shown) for i in range(min(len(images), 4))])
    made = {name: reconstruct(model, windows) for name, model in models.items()}
    save_comparison(options.out / "comparison.png", windows, made, enlarge=2.0)
    metrics = {name: row.as_dict() for name, row in figures.items()}
    metrics["run"] = {"seconds": seconds, "seed": options.seed, "steps": options.steps}
    (options.out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n", encoding="utf-8")
    for name, row in figures.items():
        print(f"{name:>16}: " + ", ".join(f"{key} {value:.3f}" for key, value in row.as_dict().items()))
    print(f"everything is in {options.out}; it took {seconds:.0f} s")


def middle(image: Tensor, side: int) -> Tensor:
    """The middle of an image, at most `side` wide and high."""
    top, left = ((length - side) // 2 for length in image.shape[1:])
    return image[:, top : top + side, left : left + side]


@torch.no_grad()
def reconstruct(model: nn.Module, images: Tensor) -> Tensor:
    device = next(model.parameters()).device
    return Autoencoder(model, sample_posterior=False)(images.to(device)).samples.cpu()


def load_images(options: argparse.Namespace):
    """Images to train on, and images held out."""
    if options.images:
        return split(folder_images(options.images), options.held_out)
    if options.dataset:
        return split(dataset_images(options.dataset, column=options.column), options.held_out)
    return photographs()


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/autoencoder"), help="folder for everything (default: %(default)s)")
    add("--resume", action="store_true", help="go on from the newest checkpoint in --out")
    add("--seed", type=int, default=0)
    add("--images", type=Path, help="folder of images (default: embedded photographs)")
    add("--dataset", help="name of a Hugging Face data set")
    add("--column", default="image", help="of the data set that holds the images (default: %(default)s)")
    add("--held-out", type=int, default=8, help="images held out of a folder or data set (default: %(default)s)")
    add(
        "--model",
        help="name or folder of a pretrained autoencoder of diffusers to go on from (default: a small new one)",
    )
    add("--subfolder", help="of --model, such as vae")
    add("--decoder-only", action="store_true", help="keep the encoder, and with it the latents, as they are")
    add("--lpips", action="store_true", help="add LPIPS to the objective and to the metrics (needs its weights)")
    add("--steps", type=int, default=3000, help="of the autoencoder (default: %(default)s)")
    add("--start-step", type=int, default=1500, help="step in which the adversary begins (default: %(default)s)")
    add("--weight", type=float, default=3.0, help="of the adversary, times the adaptive weight (default: %(default)s)")
    add("--side", type=int, default=32, help="of training crops (default: %(default)s)")
    add("--crop", type=int, help="side of the window that the adversary sees of them (default: all)")
    add("--batch", type=int, default=8, help="crops in a batch, for each process (default: %(default)s)")
    add("--lr", type=float, default=2e-3, help="of the autoencoder (default: %(default)s)")
    add("--discriminator-lr", type=float, default=5e-4, help="(default: %(default)s)")
    add("--ema-decay", type=float, default=0.99, help="of the averaged autoencoder (default: %(default)s)")
    add("--no-compare", dest="compare", action="store_false", help="do not train a copy without the adversary")
    add("--shown", type=int, default=128, help="side of the windows in the picture (default: %(default)s)")
    add("--save-every", type=int, default=500, help="steps between checkpoints (default: %(default)s)")
    add("--workers", type=int, default=0, help="processes that load images (default: %(default)s)")
    add("--mixed-precision", choices=("no", "bf16", "fp16"), default="no")
    add("--cpu", action="store_true", help="do not use an accelerator")
    options = parser.parse_args()
    for name in ("steps", "side", "batch", "held_out", "shown", "save_every"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
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
