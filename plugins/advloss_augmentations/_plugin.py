"""Hooks of this plugin: what it offers, as data."""

from __future__ import annotations

from advloss import AugmentationSpec, Paper, hookimpl


@hookimpl
def advloss_augmentations() -> list[AugmentationSpec]:
    return [
        AugmentationSpec(
            name="ada",
            target="advloss_augmentations._ada:AdaptiveAugment",
            summary="ADA: flips, turns, scales and colours, as often as the discriminator's overfitting asks for.",
            paper=Paper(
                "Training Generative Adversarial Networks with Limited Data",
                "Karras, Tero and Aittala, Miika and Hellsten, Janne and Laine, Samuli and Lehtinen, Jaakko and Aila, Timo",
                2020,
                arxiv="2006.06676",
            ),
            dims=(2,),
            examples=({}, {"p": 0.8}),
        ),
        AugmentationSpec(
            name="diffaugment",
            target="advloss_augmentations._diffaugment:DiffAugment",
            summary="DiffAugment: random colour, translation and cutout; for limited data.",
            paper=Paper(
                "Differentiable Augmentation for Data-Efficient GAN Training",
                "Zhao, Shengyu and Liu, Zhijian and Lin, Ji and Zhu, Jun-Yan and Han, Song",
                2020,
                arxiv="2006.10738",
            ),
            dims=(2,),
        ),
        AugmentationSpec(
            name="instance-noise",
            target="advloss_augmentations._instance_noise:InstanceNoise",
            summary="Instance noise: Gaussian noise on all samples, constant or fading out.",
            paper=Paper(
                "Amortised MAP Inference for Image Super-resolution",
                "Sønderby, Casper Kaae and Caballero, Jose and Theis, Lucas and Shi, Wenzhe and Huszár, Ferenc",
                2016,
                arxiv="1610.04490",
            ),
            dims=(0, 1, 2, 3),
        ),
    ]
