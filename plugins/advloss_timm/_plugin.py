"""Hooks of this plugin: what it offers, as data."""

from __future__ import annotations

from advloss import DiscriminatorSpec, Paper, hookimpl


@hookimpl
def advloss_discriminators() -> list[DiscriminatorSpec]:
    return [
        DiscriminatorSpec(
            name="dino",
            target="advloss_timm._dino:dino",
            summary="Heads on the tokens of a frozen DINO vision transformer, as in StyleGAN-T and ADD.",
            paper=Paper(
                "StyleGAN-T: Unlocking the Power of GANs for Fast Large-Scale Text-to-Image Synthesis",
                "Sauer, Axel and Karras, Tero and Laine, Samuli and Geiger, Andreas and Aila, Timo",
                2023,
                arxiv="2301.09515",
            ),
            requires=("timm",),
            extra="timm",
            conditions=("class", "vector"),
            output="multi-scale",
            features=True,
            double_backward=False,
            batch_coupled=True,
            compiles=False,
            pretrained=True,
            examples=({"backbone": "test_vit", "pretrained": False, "resolution": 32, "blocks": (0, 1)},),
        ),
        DiscriminatorSpec(
            name="projected",
            target="advloss_timm._projected:projected",
            summary="Projected GAN: four heads on a randomly mixed pyramid of frozen features.",
            paper=Paper(
                "Projected GANs Converge Faster",
                'Sauer, Axel and Chitta, Kashyap and M{\\"u}ller, Jens and Geiger, Andreas',
                2021,
                arxiv="2111.01007",
            ),
            requires=("timm",),
            extra="timm",
            conditions=("class",),
            output="multi-scale",
            features=True,
            batch_coupled=True,
            pretrained=True,
            examples=({"backbone": "test_efficientnet", "pretrained": False, "resolution": 64, "width": 8},),
        ),
    ]
