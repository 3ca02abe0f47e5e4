"""Recipes of papers that train a GAN by itself."""

from __future__ import annotations

import functools

import torch

from advloss import OptionError, Recipe
from advloss_recipes._optimizers import adam, rmsprop

R3GAN_WEIGHTS = {"cifar10": 0.05, "ffhq64": 2.0, "ffhq256": 150.0, "imagenet32": 0.5, "imagenet64": 1.0}
"""Gamma of R1 and of R2 at the start of training (R3GAN, arXiv:2501.05441, released configurations)."""


def dcgan(in_channels: int = 3, resolution: int = 64) -> Recipe:
    """DCGAN (arXiv:1511.06434, section 3): Adam 2e-4, beta1 0.5, for both players."""
    optimizer = adam(2e-4, 0.5, 0.999)
    return Recipe(
        discriminator=("discriminators/dcgan", {"in_channels": in_channels, "resolution": resolution}),
        loss="losses/non-saturating",
        optimizer=optimizer,
        generator_optimizer=optimizer,
    )


def wgan(in_channels: int = 3, resolution: int = 64) -> Recipe:
    """Wasserstein GAN (arXiv:1701.07875, algorithm 1): clipping at 0.01, RMSprop 5e-5, 5 critic steps."""
    optimizer = rmsprop(5e-5)
    return Recipe(
        discriminator=("discriminators/dcgan", {"in_channels": in_channels, "resolution": resolution}),
        loss="losses/wasserstein",
        regularizers={"regularizers/weight-clipping": {"clip": 0.01}},
        optimizer=optimizer,
        discriminator_steps=5,
        generator_optimizer=optimizer,
    )


def wgan_gp(in_channels: int = 3, resolution: int = 64) -> Recipe:
    """WGAN-GP (arXiv:1704.00028): no batch norm in the critic, Adam 1e-4 (0.5, 0.9), 5 critic steps."""
    optimizer = adam(1e-4, 0.5, 0.9)
    return Recipe(
        discriminator=("discriminators/dcgan", {"in_channels": in_channels, "resolution": resolution, "norm": "none"}),
        loss="losses/wgan-gp",
        optimizer=optimizer,
        discriminator_steps=5,
        generator_optimizer=optimizer,
    )


def sngan(in_channels: int = 3, resolution: int = 32) -> Recipe:
    """SN-GAN (arXiv:1802.05957, section 4): residual networks, hinge, Adam 2e-4 (0, 0.9), 5 discriminator steps."""
    optimizer = adam(2e-4, 0.0, 0.9)
    return Recipe(
        discriminator=(
            "discriminators/spectral-norm",
            {"in_channels": in_channels, "resolution": resolution, "architecture": "residual"},
        ),
        loss="losses/hinge",
        optimizer=optimizer,
        discriminator_steps=5,
        generator_optimizer=optimizer,
    )


def r3gan(
    preset: str = "cifar10",
    in_channels: int = 3,
    resolution: int = 32,
    width: int = 768,
    num_classes: int | None = None,
    steps: int | None = None,
) -> Recipe:
    """R3GAN (arXiv:2501.05441): relativistic pairing with R1 and R2 on every step, Adam 2e-4 (0, 0.9).

    Args:
        preset: whose starting gamma to use: ``"cifar10"``, ``"ffhq64"``, ``"ffhq256"``, ``"imagenet32"``,
            ``"imagenet64"``. It grows with resolution. The paper anneals it to a tenth; here it stays.
        steps: when given, the learning rate follows a cosine from 2e-4 to 5e-5 over so many steps.
    """
    if preset not in R3GAN_WEIGHTS:
        raise OptionError(f"preset={preset!r}: there are {', '.join(R3GAN_WEIGHTS)}")
    weight = R3GAN_WEIGHTS[preset]
    optimizer = adam(2e-4, 0.0, 0.9)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR
    options = {"in_channels": in_channels, "resolution": resolution, "width": width, "num_classes": num_classes}
    return Recipe(
        discriminator=("discriminators/r3gan", options),
        loss="losses/relativistic",
        regularizers={"regularizers/r1": {"weight": weight}, "regularizers/r2": {"weight": weight}},
        optimizer=optimizer,
        scheduler=functools.partial(cosine, T_max=steps, eta_min=5e-5) if steps else None,
        generator_optimizer=optimizer,
        ema_decay=0.999,
    )
