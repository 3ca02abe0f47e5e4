"""Lessons on images: conditional DCGAN, adaptive augmentation, spectral norm."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from advloss import InputError
from advloss_gan._classifier import train_digit_classifier
from advloss_gan._digits import CLASSES, digits
from advloss_gan._feature_metrics import class_diversity, feature_metrics
from advloss_gan._images import CACHE, load_images
from advloss_gan._sample_grids import save_grid
from advloss_gan.generators import DCGANGenerator
from advloss_gan.lessons._lesson import Figures, Lesson, accuracy, play, slope

LATENT, BATCH, SAMPLES = 32, 64, 1000


def batches(images: Dataset[Any]) -> DataLoader[Any]:
    return DataLoader(images, BATCH, shuffle=True, drop_last=True)


def samples_of(generator: nn.Module, labels: Tensor | None = None) -> Tensor:
    latent = torch.randn(SAMPLES if labels is None else len(labels), LATENT)
    with torch.no_grad():
        samples: Tensor = generator(latent) if labels is None else generator(latent, labels)
    return samples


def garments() -> tuple[Dataset[Any], str, int]:
    """Fashion-MNIST where torchvision has it on this disk (at 32 x 32, as DCGAN wants a power of two), otherwise digits."""
    if (CACHE / "torchvision" / "FashionMNIST").is_dir():
        try:
            return load_images("torchvision:FashionMNIST", resolution=32, channels=1), "Fashion-MNIST", 32
        except InputError:
            pass  # half of it
    return digits()[0], "digits", 8


def conditional(scale: float, folder: Path) -> Lesson:
    """A conditional DCGAN, epoch by epoch: the discriminator's accuracy, and how far samples of a class differ."""
    images, name, resolution = garments()
    loader = batches(images)
    epochs = max(2, int(40 * scale))
    sizes = {"resolution": resolution, "width": 32, "num_classes": CLASSES}
    generator = DCGANGenerator(latent_features=LATENT, out_channels=1, **sizes)
    log, rows = folder / "conditional.jsonl", {}
    labels = torch.arange(500) % CLASSES
    chosen = [images[i] for i in torch.randperm(len(images))[:500].tolist()]  # type: ignore[arg-type]
    real, classes = (torch.stack(part) for part in zip(*chosen))
    means = torch.stack([real[classes == label].mean(0) for label in range(CLASSES)])

    def judge(samples: Tensor, labels: Tensor) -> Figures:
        spread = class_diversity(samples, labels)
        right = torch.cdist(samples.flatten(1), means.flatten(1)).argmin(1) == labels
        return {
            "right": float(right.float().mean()),
            "diversity": sum(spread.values()) / CLASSES,
            "least": min(spread.values()),
        }

    def look(step: int, averaged: nn.Module) -> None:
        epoch, place = divmod(step, len(loader))
        if place == 0:
            share = accuracy(log, slice(-len(loader), None))
            rows[f"epoch {epoch}"] = {"accuracy": share, **judge(samples_of(averaged, labels), labels)}

    rows[name] = judge(real, classes)
    made, _ = play(
        generator,
        ("dcgan", {"in_channels": 1, **sizes}),
        loader,
        latent=LATENT,
        steps=epochs * len(loader),
        lr=1e-3,
        num_classes=CLASSES,
        on_step=look,
        log=log,
    )
    save_grid(folder / "conditional.png", samples_of(made, labels[: 10 * CLASSES]), columns=CLASSES)
    data, last = rows[name], rows[f"epoch {epochs}"]
    return Lesson(
        name="conditional",
        claim="Samples come to be of the class that was asked for (nearest to its mean as often as 0.8 of the data are), and those "
        "of a class to differ at least half as far as the data's, in every class a quarter.",
        rows=rows,
        holds=last["right"] > 0.8 * data["right"]
        and last["diversity"] > 0.5 * data["diversity"]
        and last["least"] > 0.25 * data["diversity"],
    )


def small_data(scale: float, folder: Path) -> Lesson:
    """A hundred digits, with and without adaptive augmentation; the others are held out."""
    train, rows, shown = digits()[0], {}, list[Tensor]()
    few, others = TensorDataset(train.tensors[0][:100]), train.tensors[0][100:]
    steps, classifier = max(20, int(3000 * scale)), train_digit_classifier()
    ada = {"ada": {"images": 50_000, "target": 0.1, "policy": "blit,geometry"}}  # so small a network is seldom sure
    for name, augmentations in (("none", {}), ("ada", ada)):
        generator = DCGANGenerator(latent_features=LATENT, out_channels=1, resolution=8, width=32)
        discriminator = ("dcgan", {"in_channels": 1, "resolution": 8, "width": 32, "norm": "none"})
        made, adversary = play(
            generator,
            discriminator,
            batches(few),
            latent=LATENT,
            steps=steps,
            lr=5e-4,
            regularizers={"r1": {"weight": 0.1}},
            augmentations=augmentations,
        )
        features, samples = classifier.features, samples_of(made)
        compared = feature_metrics(features(samples), features(others))
        shown.append(samples[:30])
        with torch.no_grad():
            known, unknown = adversary.discriminator(few.tensors[0]), adversary.discriminator(others)
        row: Figures = {"frechet": compared.frechet, "precision": compared.precision, "recall": compared.recall}
        rows[name] = {**row, "overfitting": float(known.sign().mean() - unknown.sign().mean())}
        if augmentations:
            rows[name]["p"] = float(adversary.augmentations["ada"].p)  # type: ignore[arg-type]
    save_grid(folder / "ada.png", torch.cat([few.tensors[0][:30], *shown]), columns=15)
    return Lesson(
        name="ada",
        claim="With augmentation that follows it, and is still at work in the end, the discriminator tells the digits it was trained "
        "on less from others.",
        rows=rows,
        holds=rows["ada"]["p"] > 0 and rows["ada"]["overfitting"] < rows["none"]["overfitting"],
    )


def spectral(scale: float, folder: Path) -> Lesson:
    """The same discriminator with spectral norm and with none, at a rate that is too high for it."""
    train, rows = digits()[0], {}
    steps, classifier = max(20, int(1500 * scale)), train_digit_classifier()
    for norm in ("none", "spectral"):
        generator = DCGANGenerator(latent_features=LATENT, out_channels=1, resolution=8, width=32)
        discriminator = ("dcgan", {"in_channels": 1, "resolution": 8, "width": 32, "norm": norm})
        log = folder / "spectral-norm.jsonl"
        made, adversary = play(
            generator,
            discriminator,
            batches(TensorDataset(train.tensors[0])),
            latent=LATENT,
            steps=steps,
            loss="hinge",
            lr=1e-3,
            discriminator_lr=4e-3,
            log=log,
        )
        compared = feature_metrics(classifier.features(samples_of(made)), classifier.features(train.tensors[0]))
        taught = slope(adversary, samples_of(made)[:BATCH], train.tensors[0][:BATCH])
        rows[norm] = {
            "accuracy": accuracy(log, slice(-max(10, steps // 5), None)),
            "gradient": taught,
            "frechet": compared.frechet,
        }
    return Lesson(
        name="spectral-norm",
        claim="Without it nothing bounds the discriminator's slope: the gradient that the generator gets is at least twice as "
        "large. (On digits of 8 x 8 that does not make samples worse.)",
        rows=rows,
        holds=rows["spectral"]["gradient"] < 0.5 * rows["none"]["gradient"],
    )
