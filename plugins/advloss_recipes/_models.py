"""Recipes of papers that use an adversarial loss inside another model."""

from __future__ import annotations

from typing import Any

from advloss import Recipe
from advloss_recipes._optimizers import adam


def vqgan(in_channels: int = 3, start_step: int = 250_000) -> Recipe:
    """VQGAN (arXiv:2012.09841): PatchGAN, halved hinge, weight 0.8 (times the adaptive weight) after a warm-up.

    Args:
        start_step: both players of the game begin here; taming-transformers 250,000, latent diffusion 50,000.
    """
    optimizer = adam(4.5e-6, 0.5, 0.9)
    return Recipe(
        discriminator=("discriminators/patch", {"in_channels": in_channels}),
        loss=("losses/hinge", {"scale": 0.5}),
        weight=0.8,
        start_step=start_step,
        optimizer=optimizer,
        generator_optimizer=optimizer,
    )


def esrgan(in_channels: int = 3, resolution: int = 128) -> Recipe:
    """ESRGAN (arXiv:1809.00219, section 4.1): VGG-style, relativistic average, weight 0.005, Adam 1e-4."""
    optimizer = adam(1e-4, 0.9, 0.999)
    return Recipe(
        discriminator=("discriminators/vgg", {"in_channels": in_channels, "resolution": resolution}),
        loss="losses/relativistic-average",
        weight=0.005,
        optimizer=optimizer,
        generator_optimizer=optimizer,
    )


def real_esrgan(in_channels: int = 3) -> Recipe:
    """Real-ESRGAN (arXiv:2107.10833, section 4.1): U-Net with spectral norm, weight 0.1, Adam 1e-4 (0.9, 0.99)."""
    optimizer = adam(1e-4, 0.9, 0.99)
    return Recipe(
        discriminator=("discriminators/unet", {"in_channels": in_channels}),
        loss="losses/non-saturating",
        weight=0.1,
        optimizer=optimizer,
        generator_optimizer=optimizer,
        ema_decay=0.999,
    )


def pix2pix(in_channels: int = 3, condition_channels: int = 3) -> Recipe:
    """pix2pix (arXiv:1611.07004, section 3.3): PatchGAN that sees input and output; beside L1 times 100."""
    optimizer = adam(2e-4, 0.5, 0.999)
    return Recipe(
        discriminator=("discriminators/patch", {"in_channels": in_channels, "condition_channels": condition_channels}),
        loss="losses/non-saturating",
        optimizer=optimizer,
        generator_optimizer=optimizer,
    )


def add(
    backbone: str = "vit_small_patch14_dinov2.lvd142m",
    pretrained: bool = True,
    in_channels: int = 3,
    resolution: int = 518,
    num_classes: int | None = None,
    condition_features: int | None = None,
) -> Recipe:
    """Adversarial diffusion distillation (arXiv:2311.17042): heads on frozen DINOv2 features, hinge, R1 on head inputs.

    The paper names no optimizer for the heads; Adam 2e-3 (0, 0.99) is StyleGAN-T's (arXiv:2301.09515), whose heads
    they are.
    """
    options: dict[str, Any] = {"backbone": backbone, "pretrained": pretrained, "in_channels": in_channels}
    options.update(resolution=resolution, num_classes=num_classes, condition_features=condition_features)
    return Recipe(
        discriminator=("timm/dino", options),
        loss=("losses/hinge", {"scales": "sum"}),  # the paper sums over heads
        regularizers={"regularizers/r1": {"weight": 1e-5, "inputs": "features"}},
        optimizer=adam(2e-3, 0.0, 0.99),
    )
