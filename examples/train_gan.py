"""Train a GAN by itself: on points whose modes can be counted, on digits, or on images of your own.

    pip install 'advloss[gan]'
    python train_gan.py                                   # a ring of eight Gaussians: does it find them all?
    python train_gan.py --resume                          # go on after Ctrl-C
    python train_gan.py --data grid                       # 25 Gaussians; also: line, digits, stacked-digits
    python train_gan.py --data digits --conditional --generator style:width=32 --grow 500
    python train_gan.py --data my/folder --resolution 64 --conditional
    python train_gan.py --data torchvision:CIFAR10 --resolution 32 --recipe r3gan:width=256
    python train_gan.py --loss hinge --regularizer r1:weight=0.1,every=4 --discriminator mlp:norm=spectral
    accelerate launch --multi_gpu --num_processes 2 train_gan.py

    python train_gan.py --discriminator ./my_file.py:MyDiscriminator:width=32
    python train_gan.py --lesson list                     # what goes wrong, and what helps: each in some minutes

`advloss list` shows the names, `advloss show NAME` their options. `tensorboard --logdir runs/gan` shows the curves, where it is installed.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import inspect
import json
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers
from accelerate.utils import is_tensorboard_available, set_seed
from torch import Tensor, nn
from torch.utils.data import DataLoader

from advloss import Adversary, AdvlossError, HealthMonitor, OptionError, list_components, parse_component
from advloss_gan import (
    GaussianMixture,
    Growth,
    SampleGrids,
    StackedDigits,
    create_generator,
    feature_metrics,
    grid,
    load_images,
    mode_metrics,
    new_file,
    num_classes_of,
    ring,
    save_generator,
    save_grid,
    save_picture,
    stacked_modes,
    train_digit_classifier,
    train_gan,
    two_gaussians,
)

SAMPLES = 2500
MIXTURES = {"ring": ring, "grid": grid, "line": two_gaussians}


@dataclass(frozen=True)
class Setting:
    """What works for a kind of data; command line options change it.

    Attributes:
        weight: of R1 and of R2; it grows with the square of the samples' size.
        lr: of both players at first; it falls along a cosine.
    """

    generator: str
    discriminator: str
    weight: float
    lr: float
    steps: int
    batch: int
    latent: int
    ema_decay: float


SETTINGS = {
    "ring": Setting("mlp:width=64,depth=4", "mlp:width=64", 0.01, 1.2e-2, 6000, 256, 2, 0.99),
    "grid": Setting("mlp:width=128,depth=4", "mlp:width=128", 0.1, 6e-3, 10000, 256, 2, 0.99),
    "line": Setting("mlp:width=64", "mlp:width=64", 0.03, 2e-3, 2000, 256, 2, 0.99),
    "digits": Setting("style:width=32", "r3gan:width=32,depth=1", 1.0, 2e-3, 3000, 64, 64, 0.995),
    "stacked-digits": Setting("dcgan:width=32", "r3gan:width=32,depth=1", 0.3, 1e-3, 3000, 64, 64, 0.999),
    "images": Setting("style:width=32", "r3gan:width=256,depth=1", 1.0, 2e-4, 100_000, 64, 64, 0.999),
}


@dataclass(frozen=True)
class Data:
    """Attributes:
    batches: what the discriminator takes for real.
    sizes: of a sample, as options of a discriminator.
    num_classes: of labelled data that are conditioned on.
    mixture: where samples come from one.
    """

    batches: Iterable[Any]
    sizes: dict[str, int]
    num_classes: int | None = None
    mixture: GaussianMixture | None = None


def load_data(given: argparse.Namespace, setting: Setting) -> Data:
    if given.conditional and given.data in (*MIXTURES, "stacked-digits"):
        raise OptionError(
            f"--conditional: {given.data} has no classes; take digits, a folder with folders in it, or a name"
        )
    if given.data in MIXTURES:
        mixture = MIXTURES[given.data]()
        return Data(mixture.batches(given.batch), {"in_features": mixture.centers.shape[1]}, mixture=mixture)
    if given.data == "stacked-digits":
        return Data(StackedDigits().batches(given.batch), {"in_channels": 3, "resolution": 8})
    sizes = {"resolution": 8, "channels": 1} if given.data == "digits" else {}
    sizes = sizes or {"resolution": given.resolution, "channels": given.channels}
    images = load_images(given.data, **sizes)
    loader = DataLoader(images, given.batch, shuffle=True, drop_last=True, num_workers=given.workers)
    if not len(loader):
        raise OptionError(f"--batch {given.batch} is more than the {len(images)} images of {given.data}: give less")
    classes = num_classes_of(images) if given.conditional else None
    if classes == 1:
        raise OptionError(
            f"--conditional: the images of {given.data} are all of one class; folders within a folder are classes"
        )
    return Data(loader, {"in_channels": sizes["channels"], "resolution": sizes["resolution"]}, classes)


def make_players(given: argparse.Namespace, setting: Setting, data: Data) -> tuple[nn.Module, Adversary, Any, Any]:
    """Generator and adversary, with an optimizer and a scheduler for the generator."""
    classes = {} if data.num_classes is None else {"num_classes": data.num_classes}
    name, options = given.generator
    out = {{"in_features": "out_features", "in_channels": "out_channels"}.get(k, k): v for k, v in data.sizes.items()}
    generator = create_generator(name, **{"latent_features": setting.latent, **out, **classes, **options})

    adam = functools.partial(torch.optim.Adam, lr=given.lr, betas=(0.0, 0.9), fused=True)
    if given.recipe:
        name, options = given.recipe
        return generator, Adversary.from_recipe(name, **{**data.sizes, **classes, **options}), adam, None
    name, options = given.discriminator
    rate = given.discriminator_lr or given.lr
    adversary = Adversary(
        (name, {**fitting(name, {**data.sizes, **classes}), **options}),
        given.loss,
        given.regularizer,
        given.augmentation,
        optimizer=functools.partial(adam, lr=rate),
        scheduler=falling(rate, given.steps * given.discriminator_steps),
    )
    return generator, adversary, adam, falling(given.lr, given.steps)


def falling(rate: float, steps: int) -> Any:
    """A learning rate that falls along a cosine, to a tenth or to 2e-4."""
    return functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=steps, eta_min=min(2e-4, rate / 10))


def fitting(name: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Those of `options` that the discriminator of this name has; none for a class of one's own, which knows its sizes."""
    rows = [row for row in list_components("discriminator") if name in (row.name, row.full_name) and row.spec]
    for row in rows:
        module, _, attribute = row.spec.target.partition(":")
        known = inspect.signature(getattr(importlib.import_module(module), attribute)).parameters
        return {option: value for option, value in options.items() if option in known}
    return {}


def evaluate(data: Data, given: argparse.Namespace, samples: Tensor) -> dict[str, Any]:
    """What can be said about samples of these data."""
    if data.mixture:
        return asdict(mode_metrics(samples, data.mixture))
    if given.data == "stacked-digits":
        captured, reverse_kl = stacked_modes(samples, train_digit_classifier())
        return {"captured": captured, "modes": StackedDigits.modes, "reverse_kl": reverse_kl}
    if given.data == "digits":
        features = train_digit_classifier().features
        return asdict(
            feature_metrics(features(samples), features(load_images("digits", resolution=8, channels=1)[:][0]))
        )
    return {}


def train(given: argparse.Namespace) -> int:
    setting = given.setting
    trackers = [kind.value for kind in get_available_trackers()]
    if given.tracker not in ("none", *trackers):
        raise OptionError(
            f"--tracker {given.tracker}: installed here: {', '.join(trackers) or 'no tracker'}; or take none"
        )
    log_with = None if given.tracker == "none" else given.tracker
    accelerator = Accelerator(log_with=log_with, project_dir=given.out if log_with else None)
    set_seed(given.seed, device_specific=True)
    data = load_data(given, setting)
    generator, adversary, adam, scheduler = make_players(given, setting, data)
    latent_features: Any = generator.latent_features
    given.out.mkdir(parents=True, exist_ok=True)
    if log_with:
        accelerator.init_trackers("curves")

    count = 26_000 if given.data == "stacked-digits" else SAMPLES  # as the papers take
    latent = torch.randn(count, latent_features, device=accelerator.device)
    labels = None if data.num_classes is None else torch.arange(count, device=accelerator.device) % data.num_classes
    snapshots: dict[str, Tensor] = {}
    shown = 100 if data.num_classes is None else 10 * data.num_classes
    grids = SampleGrids(
        given.out, latent[:shown], None if labels is None else labels[:shown], every=given.grid_every,
        columns=data.num_classes or 10, accelerator=accelerator,
    )  # fmt: skip

    def sample(averaged: nn.Module) -> Tensor:
        with torch.no_grad():
            return (averaged(latent) if labels is None else averaged(latent, labels)).cpu()

    def look(step: int, averaged: nn.Module) -> None:
        if data.mixture is None:
            grids(step, averaged)
        elif step in (given.steps // 10, given.steps // 4, given.steps // 2):
            snapshots[f"step {step}"] = sample(averaged)

    result = train_gan(
        generator,
        adversary,
        data.batches,
        latent_features=latent_features,
        num_classes=data.num_classes,
        steps=given.steps,
        discriminator_steps=given.discriminator_steps,
        generator_optimizer=adam,
        generator_scheduler=scheduler,
        ema_decay=setting.ema_decay,
        growth=Growth(steps=given.grow) if given.grow else None,
        accelerator=accelerator,
        log=given.out / "log.jsonl",
        on_step=look,
        on_report=HealthMonitor(adversary, generator_lr=given.lr),  # says what goes wrong while it does
        checkpoints=given.out / "checkpoints",
        save_every=given.save_every,
        resume=given.resume,
    )
    if result.exit_status == 143:  # SIGTERM: this machine is wanted for something else, pictures can wait
        accelerator.end_training()
        return result.exit_status

    if accelerator.is_main_process:
        samples = sample(result.generator)
        metrics = evaluate(data, given, samples)
        save_generator(result.generator, given.out / "generator.safetensors")
        if data.mixture:
            snapshots[f"step {result.steps}"] = samples
            save_picture(given.out / f"{given.data}.png", data.mixture, snapshots)
        else:
            save_grid(given.out / "samples.png", samples[:shown], data.num_classes or 10)
        run = {name: getattr(result, name) for name in ("steps", "seconds", "interrupted")}
        facts = {**metrics, **run, "processes": accelerator.num_processes}
        with new_file(given.out / "metrics.json") as file:
            file.write_text(json.dumps({**facts, "settings": vars(given)}, indent=2, default=str) + "\n")
        print(
            f"{'stopped' if result.interrupted else 'finished'} after {result.steps} steps, {result.seconds:.0f} s: "
            f"{in_words(metrics)}files in {given.out}"
        )
    accelerator.end_training()
    return result.exit_status


def in_words(metrics: dict[str, Any]) -> str:
    words = [f"modes {metrics['captured']}/{metrics['modes']}"] if "modes" in metrics else []
    words += [f"high quality {metrics['quality']:.1%}"] if "quality" in metrics else []
    numbers = ("reverse_kl", "frechet", "precision", "recall")
    words += [f"{n.replace('_kl', ' KL')} {metrics[n]:.3f}" for n in numbers if n in metrics]
    return ", ".join(words) + ("; " if words else "")


def component(text: str) -> tuple[Any, dict[str, Any]]:
    """A name or a class of the user's own, with options."""
    try:
        return parse_component(text)
    except AdvlossError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def positive(kind: type) -> Any:
    """Of this kind, above 0."""

    def read(text: str) -> Any:
        value = kind(text)
        if not 0 < value < float("inf"):
            raise argparse.ArgumentTypeError(f"{text}: give a number above 0")
        return value

    read.__name__ = kind.__name__  # in the parser's words
    return read


def from_zero(text: str) -> int:
    """A whole number, 0 or more."""
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text}: give 0 or more")
    return value


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    form = {"type": component, "metavar": "NAME[:OPTION=VALUE,...]"}
    several = {**form, "action": "extend", "nargs": "*"}
    add = parser.add_argument
    add(
        "--data",
        default="ring",
        help="ring, grid, line, digits, stacked-digits, torchvision:NAME, datasets:NAME, or a folder",
    )
    add("--resolution", type=positive(int), default=64, help="side of images (default: %(default)s)")
    add("--channels", type=int, default=3, choices=(1, 3), help="of images (default: %(default)s)")
    add("--conditional", action="store_true", help="tell both players the class")
    add("--generator", help="mlp, dcgan, resnet, style or r3gan (default: by data)", **form)
    add("--discriminator", help="(default: by data)", **form)
    add("--loss", help="(default: relativistic)", **form)
    add("--regularizer", help="any number of them (default: r1 and r2)", **several)
    add("--augmentation", help="any number of them, such as ada:images=20000", **several)
    add(
        "--recipe",
        help="a paper's discriminator, loss, regularizers and optimizer, such as r3gan (not its --discriminator-steps)",
        **form,
    )
    add("--discriminator-steps", type=int, default=1, help="for each generator step")
    add("--lr", type=positive(float), help="learning rate of both players at first (default: by data)")
    add("--discriminator-lr", type=positive(float), help="another one for the discriminator")
    add("--steps", type=int, help="generator steps (default: by data)")
    add("--batch", type=positive(int), help="samples in a batch (default: by data)")
    add("--grow", type=int, help="progressive growing: steps for each doubling of the side, from 4 x 4")
    add("--seed", type=from_zero, default=0)
    tensorboard = "tensorboard" if is_tensorboard_available() else "none"
    add("--tracker", default=tensorboard, help="tensorboard, wandb, ... or none (default: %(default)s)")
    add("--grid-every", type=int, default=500, help="steps between pictures of samples (default: %(default)s)")
    add("--save-every", type=int, default=500, help="steps between checkpoints")
    add("--workers", type=from_zero, default=0, help="processes that load images")
    add("--resume", action="store_true", help="go on from the newest checkpoint in --out")
    add("--out", type=Path, default=Path("runs/gan"), help="folder for what is written")
    add("--lesson", help="run a lesson in place of a training: its name, or list")
    given = parser.parse_args()
    given.setting = setting = SETTINGS.get(given.data, SETTINGS["images"])
    taken = ("discriminator", "loss", "regularizer", "augmentation", "discriminator_lr")
    if given.recipe and (both := [f"--{name.replace('_', '-')}" for name in taken if getattr(given, name) is not None]):
        parser.error(
            f"--recipe brings its own: leave out {', '.join(both)}, or give options as --recipe NAME:OPTION=VALUE"
        )
    for name in ("generator", "discriminator"):
        setattr(given, name, getattr(given, name) or component(getattr(setting, name)))
    for name in ("steps", "batch", "lr"):
        setattr(given, name, getattr(setting, name) if getattr(given, name) is None else getattr(given, name))
    given.loss = given.loss or component("relativistic")
    given.augmentation = given.augmentation or []
    if given.regularizer is None:
        given.regularizer = [component(f"{name}:weight={setting.weight}") for name in ("r1", "r2")]
    return given


def lesson(given: argparse.Namespace) -> int:
    from advloss_gan.lessons import LESSONS, run_lesson

    if given.lesson == "list":
        print("\n".join(f"{name:>22}  {summary}" for name, summary in LESSONS.items()))
        return 0
    given.out.mkdir(parents=True, exist_ok=True)
    result = run_lesson(given.lesson, seed=given.seed, folder=given.out)
    print(result.table())
    with new_file(given.out / f"{given.lesson}.json") as file:
        file.write_text(json.dumps(asdict(result), indent=2) + "\n")
    return 0 if result.holds else 1


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # vanishing gradients are slow on a CPU otherwise
    torch.set_num_threads(1)  # layers this small gain nothing from more
    try:
        options = parse()
        sys.exit(lesson(options) if options.lesson else train(options))
    except (AdvlossError, OSError) as error:
        sys.exit(f"train_gan.py: {error}")
