"""Hooks of this plugin: what it offers, as data."""

from __future__ import annotations

from advloss import DiscriminatorSpec, Paper, hookimpl

_PIX2PIX = Paper(
    "Image-to-Image Translation with Conditional Adversarial Networks",
    "Isola, Phillip and Zhu, Jun-Yan and Zhou, Tinghui and Efros, Alexei A.",
    2016,
    arxiv="1611.07004",
)
_SN_GAN = Paper(
    "Spectral Normalization for Generative Adversarial Networks",
    "Miyato, Takeru and Kataoka, Toshiki and Koyama, Masanori and Yoshida, Yuichi",
    2018,
    arxiv="1802.05957",
)
_PROJECTION = Paper(
    "cGANs with Projection Discriminator", "Miyato, Takeru and Koyama, Masanori", 2018, arxiv="1802.05637"
)
_PIX2PIX_HD = Paper(
    "High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs",
    "Wang, Ting-Chun and Liu, Ming-Yu and Zhu, Jun-Yan and Tao, Andrew and Kautz, Jan and Catanzaro, Bryan",
    2018,
    arxiv="1711.11585",
)
_REAL_ESRGAN = Paper(
    "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data",
    "Wang, Xintao and Xie, Liangbin and Dong, Chao and Shan, Ying",
    2021,
    arxiv="2107.10833",
)
_GAN = Paper("Generative Adversarial Networks", "Goodfellow, Ian J. and others", 2014, arxiv="1406.2661")
_DCGAN = Paper(
    "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks",
    "Radford, Alec and Metz, Luke and Chintala, Soumith",
    2015,
    arxiv="1511.06434",
)
_ESRGAN = Paper(
    "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks",
    "Wang, Xintao and Yu, Ke and Wu, Shixiang and Gu, Jinjin and Liu, Yihao and Dong, Chao and Loy, Chen Change "
    "and Qiao, Yu and Tang, Xiaoou",
    2018,
    arxiv="1809.00219",
)
_ESPCN = Paper(
    "Real-Time Single Image and Video Super-Resolution Using an Efficient Sub-Pixel Convolutional Neural Network",
    "Shi, Wenzhe and Caballero, Jose and Huszar, Ferenc and Totz, Johannes and Aitken, Andrew P. and Bishop, Rob and "
    "Rueckert, Daniel and Wang, Zehan",
    2016,
    arxiv="1609.05158",
)
_R3GAN = Paper(
    "The GAN is dead; long live the GAN! A Modern GAN Baseline",
    "Huang, Yiwen and Gokaslan, Aaron and Kuleshov, Volodymyr and Tompkin, James",
    2025,
    arxiv="2501.05441",
)
_STYLEGAN2 = Paper(
    "Analyzing and Improving the Image Quality of StyleGAN",
    "Karras, Tero and Laine, Samuli and Aittala, Miika and Hellsten, Janne and Lehtinen, Jaakko and Aila, Timo",
    2020,
    arxiv="1912.04958",
)
_PROJECTED = {"width": 2, "resolution": 16, "num_classes": 3, "condition_features": 2, "num_steps": 4}


@hookimpl
def advloss_discriminators() -> list[DiscriminatorSpec]:
    return [
        DiscriminatorSpec(
            name="patch",
            target="advloss_discriminators._patch:PatchDiscriminator",
            summary="PatchGAN: a map of logits, each for a patch of 70 x 70 pixels; for images, signals and volumes.",
            paper=_PIX2PIX,
            dims=(1, 2, 3),
            smallest=24,
            conditions=("image",),
            batch_coupled=True,
            examples=({"width": 2, "depth": 1}, {"width": 2, "depth": 1, "norm": "none"}),
        ),
        DiscriminatorSpec(
            name="multiscale",
            target="advloss_discriminators._multiscale:MultiscaleDiscriminator",
            summary="Copies of any other discriminator, one for each level of an image pyramid.",
            paper=_PIX2PIX_HD,
            dims=(1, 2, 3),
            smallest=93,
            conditions=("class", "vector", "image", "time"),
            output="multi-scale",
            batch_coupled=True,
            examples=(
                {"discriminator": ("discriminators/patch", {"width": 2, "depth": 1}), "scales": 2},
                {"discriminator": ("discriminators/patch", {"width": 2, "depth": 1, "dims": 1}), "scales": 2},
                {
                    "discriminator": (
                        "discriminators/patch",
                        {"width": 2, "depth": 1, "dims": 3, "condition_channels": 1},
                    ),
                    "scales": 2,
                },
                {"discriminator": ("discriminators/projection", _PROJECTED), "scales": 2},
            ),
        ),
        DiscriminatorSpec(
            name="pixel-unshuffle",
            target="advloss_discriminators._pixel_unshuffle:PixelUnshuffleDiscriminator",
            summary="Any image discriminator, on squares of pixels turned into channels; for large images.",
            paper=_ESPCN,
            smallest=47,
            conditions=("image",),  # those of a class, a vector or a step pass through to what takes them
            batch_coupled=True,
            examples=(
                {"discriminator": ("discriminators/patch", {"width": 2, "depth": 1})},
                {"discriminator": ("discriminators/patch", {"width": 2, "depth": 1}), "condition_channels": 1},
                {"discriminator": ("discriminators/unet", {"width": 2}), "factor": 3},
            ),
        ),
        DiscriminatorSpec(
            name="detail",
            target="advloss_discriminators._detail:DetailDiscriminator",
            summary="A small PatchGAN on what a blur of 3 x 3 pixels removes, enlarged; beside a pixel loss.",
            paper=_PIX2PIX,
            smallest=4,
            examples=({"width": 2},),
        ),
        DiscriminatorSpec(
            name="unet",
            target="advloss_discriminators._unet:UNetDiscriminator",
            summary="U-Net with spectral norm: a logit for every pixel; for super-resolution.",
            paper=_REAL_ESRGAN,
            smallest=8,
            examples=({"width": 2},),
        ),
        DiscriminatorSpec(
            name="spectral-norm",
            target="advloss_discriminators._spectral_norm:SpectralNormDiscriminator",
            summary="SN-GAN's convolutional or residual network, spectral norm on every layer.",
            paper=_SN_GAN,
            smallest=32,
            output="logit",
            fixed_size=True,
            examples=({"width": 2, "resolution": 8}, {"width": 2, "resolution": 8, "architecture": "residual"}),
        ),
        DiscriminatorSpec(
            name="projection",
            target="advloss_discriminators._projection:ProjectionDiscriminator",
            summary="Conditional: inner product of features with the embedding of a class, a vector or a step.",
            paper=_PROJECTION,
            smallest=32,
            conditions=("class", "vector", "time"),
            output="logit",
            fixed_size=True,
            examples=({"width": 2, "resolution": 8, "num_classes": 3},),
        ),
        DiscriminatorSpec(
            name="mlp",
            target="advloss_discriminators._mlp:MLPDiscriminator",
            summary="Multilayer perceptron, for vectors and points in the plane.",
            paper=_GAN,
            dims=(0,),
            value_range=None,
            conditions=("class", "vector", "time"),
            output="logit",
            examples=({"width": 4}, {"width": 4, "norm": "spectral"}),
        ),
        DiscriminatorSpec(
            name="minibatch",
            target="advloss_discriminators._minibatch:MinibatchDiscriminator",
            summary="Any other discriminator with minibatch discrimination before its last layer, against collapse.",
            paper=Paper(
                "Improved Techniques for Training GANs",
                "Salimans, Tim and Goodfellow, Ian and Zaremba, Wojciech and Cheung, Vicki and Radford, Alec and Chen, Xi",
                2016,
                arxiv="1606.03498",
            ),
            dims=(0, 2),
            value_range=None,
            conditions=("class", "vector", "time"),
            output="logit",
            batch_coupled=True,
            compiles=False,
            examples=(
                {"discriminator": ("discriminators/mlp", {"width": 4})},
                {"discriminator": ("discriminators/projection", _PROJECTED)},
            ),
        ),
        DiscriminatorSpec(
            name="dcgan",
            target="advloss_discriminators._dcgan:DCGANDiscriminator",
            summary="DCGAN's strided convolutions with batch norm.",
            paper=_DCGAN,
            smallest=64,
            conditions=("class",),
            output="logit",
            batch_coupled=True,
            fixed_size=True,
            examples=({"width": 2, "resolution": 16},),
        ),
        DiscriminatorSpec(
            name="vgg",
            target="advloss_discriminators._vgg:VGGDiscriminator",
            summary="VGG-style network with batch norm; for super-resolution, on crops.",
            paper=_ESRGAN,
            smallest=128,
            output="logit",
            batch_coupled=True,
            fixed_size=True,
            examples=({"width": 2, "resolution": 8},),
        ),
        DiscriminatorSpec(
            name="r3gan",
            target="advloss_discriminators._r3gan:R3GANDiscriminator",
            summary="R3GAN's residual stages without normalization, for use with R1 and R2.",
            paper=_R3GAN,
            smallest=32,
            conditions=("class",),
            output="logit",
            fixed_size=True,
            examples=({"width": 8, "resolution": 8, "depth": 1},),
        ),
        DiscriminatorSpec(
            name="stylegan2",
            target="advloss_discriminators._stylegan2:StyleGAN2Discriminator",
            summary="StyleGAN2's residual network with minibatch standard deviation, for use with R1.",
            paper=_STYLEGAN2,
            smallest=256,
            output="logit",
            batch_coupled=True,
            fixed_size=True,
            examples=({"width": 2, "resolution": 8},),
        ),
    ]
