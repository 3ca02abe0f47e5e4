"""Lessons on points: collapse, vanishing gradients, Wasserstein losses, minibatch discrimination, R3GAN's recipe."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advloss import Adversary
from advloss_gan._metrics import mode_metrics
from advloss_gan._mixture import GaussianMixture, grid, ring, two_gaussians
from advloss_gan._picture import save_picture
from advloss_gan.generators import MLPGenerator
from advloss_gan.lessons._lesson import Figures, Lesson, accuracy, play

LATENT, BATCH, SAMPLES = 2, 128, 2500


def samples_of(generator: nn.Module) -> Tensor:
    with torch.no_grad():
        samples: Tensor = generator(torch.randn(SAMPLES, LATENT))
    return samples


def figures(samples: Tensor, mixture: GaussianMixture) -> Figures:
    metrics = mode_metrics(samples, mixture)
    return {"modes": metrics.captured, "quality": metrics.quality, "reverse_kl": metrics.reverse_kl}


def players(mixture: GaussianMixture, width: int) -> tuple[nn.Module, Any]:
    features = mixture.centers.shape[1]
    generator = MLPGenerator(latent_features=LATENT, out_features=features, width=width)
    return generator, ("mlp", {"in_features": features, "width": width})


def collapse(scale: float, folder: Path) -> Lesson:
    """Two Gaussians on a line; the discriminator at 5 times the generator's rate; the saturating loss."""
    mixture, steps, rows = two_gaussians(), max(100, int(2000 * scale)), {}
    zero_centered = {"r1": {"weight": 0.3}, "r2": {"weight": 0.3}}
    settings: dict[str, dict[str, Any]] = {
        "same rate, R3GAN's recipe": {"loss": "relativistic", "regularizers": zero_centered, "beta1": 0.0, "lr": 2e-3},
        "5 x rate, non-saturating": {"discriminator_lr": 5e-3, "loss": "non-saturating"},
        "5 x rate, saturating": {"discriminator_lr": 5e-3, "loss": "saturating"},
    }
    for name, setting in settings.items():
        generator, discriminator = players(mixture, 32)
        log = folder / "collapse.jsonl"
        arguments = {"latent": LATENT, "log": log, "ema_decay": 0.9, **setting}
        made, _ = play(generator, discriminator, mixture.batches(BATCH), steps=steps, **arguments)
        early, late = accuracy(log, slice(10, 20)), accuracy(log, slice(-steps // 5, None))
        rows[name] = {"accuracy@20": early, "accuracy": late, **figures(samples_of(made), mixture)}
        if "saturating" in setting["loss"]:
            rows[name]["gradient"] = _share_left(mixture, setting["loss"])
    starved = rows["5 x rate, saturating"]
    return Lesson(
        name="collapse",
        claim="A discriminator that is too fast is right nearly always at first. What is left of the gradient then, over that of "
        "an undecided discriminator, is next to nothing with the saturating loss; the generator ends on one of two modes. "
        "At the same rate and with zero-centred penalties it ends on both.",
        rows=rows,
        holds=starved["accuracy@20"] > 0.9
        and starved["gradient"] < 0.1 < rows["5 x rate, non-saturating"]["gradient"]
        and starved["modes"] == 1
        and rows["same rate, R3GAN's recipe"]["modes"] == 2,
    )


def _share_left(mixture: GaussianMixture, loss: str) -> float:
    """Of what the generator's loss teaches by the logits: against 1/2 of an undecided discriminator, once one has had 200
    steps on a generator that stands still between the modes."""
    features, between = mixture.centers.shape[1], 0.1 * torch.randn(BATCH, mixture.centers.shape[1])
    adam = functools.partial(torch.optim.Adam, lr=5e-3, betas=(0.5, 0.999))
    adversary = Adversary(("mlp", {"in_features": features, "width": 32}), loss, optimizer=adam)
    for _ in range(200):
        adversary.discriminator_step(mixture.sample(BATCH), between)
    logits = adversary.discriminator(between).detach().requires_grad_()
    (gradient,) = torch.autograd.grad(adversary.loss.generator(logits, None), [logits])
    return float(gradient.abs().sum() / 0.5)


def losses(scale: float, folder: Path) -> Lesson:
    """Goodfellow's loss against WGAN with clipping and WGAN-GP, on the ring."""
    mixture, steps, rows = ring(std=0.1), max(20, int(3000 * scale)), {}
    settings: dict[str, dict[str, Any]] = {
        "Goodfellow's, saturating": {"loss": "saturating"},
        "WGAN, clipping": {
            "loss": "wasserstein",
            "regularizers": {"weight-clipping": {"clip": 0.1}},
            "discriminator_steps": 5,
        },
        "WGAN-GP": {  # with the paper's weight of 10 modes come and go; its authors took 0.1 on toys
            "loss": "wgan-gp",
            "regularizers": {"gradient-penalty": {"weight": 1.0}},
            "discriminator_steps": 5,
            "beta1": 0.0,
        },
    }
    for name, setting in settings.items():
        generator, discriminator = players(mixture, 64)
        made, adversary = play(generator, discriminator, mixture.batches(BATCH), latent=LATENT, steps=steps, **setting)
        points = mixture.sample(BATCH).requires_grad_()
        (gradient,) = torch.autograd.grad(adversary.discriminator(points).sum(), [points])
        rows[name] = {**figures(samples_of(made), mixture), "critic_slope": float(gradient.norm(dim=1).mean())}
    return Lesson(
        name="losses",
        claim="The penalty keeps the critic's slope near 1, finds all modes and makes more samples of high quality than clipping, "
        "whose slope is anywhere; Goodfellow's minimax loss finds no more modes.",
        rows=rows,
        holds=abs(rows["WGAN-GP"]["critic_slope"] - 1) < 0.5
        and rows["WGAN-GP"]["quality"] > rows["WGAN, clipping"]["quality"]
        and rows["WGAN-GP"]["modes"] == 8
        and rows["Goodfellow's, saturating"]["modes"] <= 8,
    )


def minibatch(scale: float, folder: Path) -> Lesson:
    """The ring with and without minibatch discrimination: modes at 1,000, 5,000 and 10,000 steps."""
    mixture, rows, snapshots = ring(), {}, dict[str, Tensor]()
    marks = [max(1, int(step * scale)) for step in (1000, 5000, 10_000)]
    for name in ("without", "with"):
        generator, inner = players(mixture, 64)
        discriminator = inner if name == "without" else ("minibatch", {"discriminator": inner, "kernels": 16})
        row: Figures = {}

        def look(step: int, averaged: nn.Module, name: str = name, row: Figures = row) -> None:
            if step in marks:
                samples = snapshots[f"{name}, step {step}"] = samples_of(averaged)
                found = figures(samples, mixture)
                row.update({f"modes@{step}": found["modes"], f"kl@{step}": found["reverse_kl"]})

        play(generator, discriminator, mixture.batches(BATCH), latent=LATENT, steps=marks[-1], on_step=look)
        rows[name] = row
    save_picture(folder / "minibatch.png", mixture, snapshots)
    modes, last = [f"modes@{mark}" for mark in marks], f"kl@{marks[-1]}"
    return Lesson(
        name="minibatch",
        claim="A discriminator that sees how near the samples of a batch are to each other leaves fewer modes out, in sum over the "
        "marks, and spreads samples more evenly in the end.",
        rows=rows,
        holds=sum(rows["with"][mark] for mark in modes) > sum(rows["without"][mark] for mark in modes)
        and rows["with"][last] < rows["without"][last],
    )


def recipe(scale: float, folder: Path) -> Lesson:
    """R3GAN's recipe where the non-saturating loss with R1 alone leaves modes out: the grid."""
    mixture, steps, rows = grid(), max(20, int(2500 * scale)), {}
    slope = {"weight": 0.03}
    settings: dict[str, dict[str, Any]] = {
        "non-saturating, R1": {"loss": "non-saturating", "regularizers": {"r1": slope}},
        "R3GAN: relativistic, R1 and R2": {"loss": "relativistic", "regularizers": {"r1": slope, "r2": slope}},
    }
    for name, setting in settings.items():
        generator, discriminator = players(mixture, 128)
        made, _ = play(
            generator, discriminator, mixture.batches(256), latent=LATENT, steps=steps, lr=3e-3, beta1=0.0, **setting
        )
        rows[name] = figures(samples_of(made), mixture)
    plain, whole = rows.values()
    return Lesson(
        name="r3gan",
        claim="With R1 alone the non-saturating loss spreads over fewer of the 25 modes, or less evenly.",
        rows=rows,
        holds=whole["modes"] > plain["modes"] or whole["reverse_kl"] < plain["reverse_kl"] / 2,
    )
