"""A lesson on running a generator backwards, with a picture."""

from __future__ import annotations

import functools
from pathlib import Path

import torch
from torch.utils.data import DataLoader

from advloss import Adversary
from advloss_gan._classifier import DigitClassifier, train_digit_classifier
from advloss_gan._digits import digits
from advloss_gan._directions import label_direction, move, principal_directions
from advloss_gan._inversion import Inversion, invert
from advloss_gan._sample_grids import save_grid
from advloss_gan._trainer import train_gan
from advloss_gan.generators import StyleGenerator
from advloss_gan.lessons._lesson import Lesson, whole

LATENT, SHOWN, STEPS = 64, 12, 200
ZERO, PLACES = 0, (-3.0, 3.0)


def train_digit_generator(steps: int) -> StyleGenerator:
    """A style-based generator of digits, trained by R3GAN's recipe; in eval mode."""
    adam = functools.partial(torch.optim.Adam, lr=2e-3, betas=(0.0, 0.9), fused=True)
    cosine = functools.partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=steps, eta_min=2e-5)
    generator = StyleGenerator(latent_features=LATENT, out_channels=1, width=32, resolution=8)
    adversary = Adversary(
        ("r3gan", {"in_channels": 1, "resolution": 8, "width": 32, "depth": 1}),
        "relativistic",
        {"r1": {"weight": 1.0}, "r2": {"weight": 1.0}},
        optimizer=adam,
        scheduler=cosine,
    )
    loader = DataLoader(digits()[0], 64, shuffle=True, drop_last=True)
    result = train_gan(
        generator,
        adversary,
        loader,
        latent_features=LATENT,
        steps=steps,
        generator_optimizer=adam,
        generator_scheduler=cosine,
        ema_decay=0.995,
    )
    assert isinstance(result.generator, StyleGenerator)
    return whole(result).generator  # type: ignore[return-value]


def inversion(scale: float, folder: Path) -> Lesson:
    """Held-out digits from z, w and w+ of a style-based generator, and directions in w."""
    generator = train_digit_generator(max(20, int(1500 * scale)))
    images = digits()[1].tensors[0]
    images = images[: max(SHOWN, int(len(images) * scale))]
    found = {
        space: invert(generator, images, latent_features=LATENT, space=space, steps=STEPS) for space in ("z", "w", "w+")
    }
    rows = {"best of 1,000 random samples": {"error": float(found["z"].start_errors.mean()), "ratio": 1.0}}
    rows.update({name: {"error": float(i.errors.mean()), "ratio": i.ratio} for name, i in found.items()})
    rows["direction to zero"] = _towards_zero(generator, train_digit_classifier())
    save_inversion(folder / "inversion.png", generator, images, found)
    return Lesson(
        name="inversion",
        claim="Held-out digits come back with under a quarter of the error of the best of 1,000 random samples, in w and in w+.",
        rows=rows,
        holds=rows["w"]["ratio"] < 0.25 and rows["w+"]["ratio"] < 0.25,
    )


@torch.no_grad()
def _towards_zero(generator: StyleGenerator, classifier: DigitClassifier) -> dict[str, float]:
    """Share of samples that the classifier takes for a zero, before and after moving along the direction of zeros."""
    styles = generator.styles(torch.randn(2000, LATENT))
    is_zero = classifier(generator.synthesize(styles)).argmax(1) == ZERO
    if is_zero.all() or not is_zero.any():
        return {}
    direction = label_direction(styles, is_zero)
    moved = classifier(generator.synthesize(move(styles, direction, _reach(styles, direction)))).argmax(1) == ZERO
    return {"zeros": float(is_zero.float().mean()), "zeros_after": float(moved.float().mean())}


def _reach(styles: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    return 4 * (styles @ direction).std().view(1)


@torch.no_grad()
def save_inversion(path: Path, generator: StyleGenerator, images: torch.Tensor, found: dict[str, Inversion]) -> None:
    """Rows: held-out digits; the same from z, w and w+; moved along the first principal directions of w, there and back."""
    rows = [images[:SHOWN], *(inversion.samples[:SHOWN] for inversion in found.values())]
    styles = generator.styles(torch.randn(2000, LATENT))
    directions, deviations = principal_directions(styles, 3)
    for direction, deviation in zip(directions, deviations):
        amounts = torch.linspace(*PLACES, SHOWN) * deviation
        rows.append(generator.synthesize(move(found["w"].latent[:1], direction, amounts)))
    save_grid(path, torch.cat(rows), columns=SHOWN)
