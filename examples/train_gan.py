"""Train a GAN on a ring of eight Gaussians: does it find them all?

    pip install 'advloss[gan]'
    python train_gan.py
    python train_gan.py --resume                          # go on after Ctrl-C
    python train_gan.py --loss hinge --regularizer r1:weight=0.1,every=4 --discriminator mlp:norm=spectral
    accelerate launch --multi_gpu --num_processes 2 train_gan.py

    python train_gan.py --discriminator ./my_file.py:MyDiscriminator:width=32

`advloss list` shows the names, `advloss show NAME` their options.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from advloss import Adversary, AdvlossError, parse_component
from advloss_gan import MLPGenerator, mode_metrics, new_file, ring, save_generator, save_picture, train_gan

LATENT, BATCH, SAMPLES = 2, 256, 2500


def component(text: str) -> tuple[Any, dict[str, Any]]:
    """A name or a class of the user's own, with options."""
    try:
        return parse_component(text)
    except AdvlossError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a GAN on a ring of eight Gaussians.")
    parser.add_argument("--discriminator", type=component, default="mlp:width=64", metavar="NAME[:OPTION=VALUE,...]")
    parser.add_argument("--loss", type=component, default="relativistic", metavar="NAME[:OPTION=VALUE,...]")
    parser.add_argument(
        "--regularizer",
        type=component,
        action="extend",
        nargs="*",
        metavar="NAME[:OPTION=VALUE,...]",
        help="any number of them; default: r1:weight=0.03 r2:weight=0.03",
    )
    parser.add_argument("--discriminator-steps", type=int, default=1, help="for each generator step")
    parser.add_argument("--steps", type=int, default=3000, help="generator steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--save-every", type=int, default=500, help="steps between checkpoints")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --out")
    parser.add_argument("--out", type=Path, default=Path("runs/gan"), help="folder for what is written")
    given = parser.parse_args()
    if given.regularizer is None:
        given.regularizer = [component("r1:weight=0.03"), component("r2:weight=0.03")]
    return given


def train(given: argparse.Namespace) -> int:
    torch.set_flush_denormal(True)  # vanishing gradients are slow on a CPU otherwise
    torch.set_num_threads(1)  # layers this small gain nothing from more
    accelerator = Accelerator()
    set_seed(given.seed, device_specific=True)

    adam = functools.partial(torch.optim.Adam, lr=1.2e-2, betas=(0.0, 0.9), fused=True)
    cosine = functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, eta_min=2e-4)
    adversary = Adversary(
        given.discriminator,
        given.loss,
        given.regularizer,
        optimizer=adam,
        scheduler=functools.partial(cosine, T_max=given.steps * given.discriminator_steps),
    )
    generator = MLPGenerator(latent_features=LATENT, width=64, depth=4)
    mixture = ring()
    given.out.mkdir(parents=True, exist_ok=True)

    latent = torch.randn(SAMPLES, LATENT, device=accelerator.device)
    snapshots: dict[str, Tensor] = {}

    def sample(averaged: nn.Module) -> Tensor:
        with torch.no_grad():
            return averaged(latent).cpu()

    def snapshot(step: int, averaged: nn.Module) -> None:
        if step in (given.steps // 10, given.steps // 4, given.steps // 2):
            snapshots[f"step {step}"] = sample(averaged)

    result = train_gan(
        generator,
        adversary,
        mixture.batches(BATCH),
        latent_features=LATENT,
        steps=given.steps,
        discriminator_steps=given.discriminator_steps,
        generator_optimizer=adam,
        generator_scheduler=functools.partial(cosine, T_max=given.steps),
        ema_decay=0.99,
        accelerator=accelerator,
        log=given.out / "log.jsonl",
        on_step=snapshot,
        checkpoints=given.out / "checkpoints",
        save_every=given.save_every,
        resume=given.resume,
    )
    if result.exit_status == 143:  # SIGTERM: this machine is wanted for something else, pictures can wait
        return result.exit_status

    if accelerator.is_main_process:
        samples = sample(result.generator)
        metrics = mode_metrics(samples, mixture)
        save_generator(result.generator, given.out / "generator.safetensors")
        save_picture(given.out / "ring.png", mixture, {**snapshots, f"step {result.steps}": samples})
        run = {name: getattr(result, name) for name in ("steps", "seconds", "interrupted")}
        facts = {**asdict(metrics), **run, "processes": accelerator.num_processes}
        with new_file(given.out / "metrics.json") as file:
            file.write_text(json.dumps({**facts, "settings": vars(given)}, indent=2, default=str) + "\n")
        print(
            f"{'stopped' if result.interrupted else 'finished'} after {result.steps} steps, {result.seconds:.0f} s: "
            f"modes {metrics.captured}/{metrics.modes}, high quality {metrics.quality:.1%}, "
            f"reverse KL {metrics.reverse_kl:.3f}; files in {given.out}"
        )
    accelerator.end_training()
    return result.exit_status


if __name__ == "__main__":
    try:
        sys.exit(train(parse()))
    except (AdvlossError, OSError) as error:
        sys.exit(f"train_gan.py: {error}")
