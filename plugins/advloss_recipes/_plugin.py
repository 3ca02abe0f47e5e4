"""Hooks of this plugin: what it offers, as data."""

from __future__ import annotations

from advloss import Paper, RecipeSpec, hookimpl


def _recipe(name: str, target: str, summary: str, paper: Paper, requires: tuple[str, ...] = ()) -> RecipeSpec:
    extra = "timm" if requires else None
    return RecipeSpec(
        name=name, target=f"advloss_recipes.{target}", summary=summary, paper=paper, requires=requires, extra=extra
    )


@hookimpl
def advloss_recipes() -> list[RecipeSpec]:
    return [
        _recipe(
            "dcgan",
            "_gan:dcgan",
            "DCGAN: strided convolutions, batch norm, non-saturating loss.",
            Paper(
                "Unsupervised Representation Learning with Deep Convolutional Generative Adversarial Networks",
                "Radford, Alec and Metz, Luke and Chintala, Soumith",
                2015,
                arxiv="1511.06434",
            ),
        ),
        _recipe(
            "wgan",
            "_gan:wgan",
            "Wasserstein GAN with weight clipping, RMSprop, 5 critic steps.",
            Paper("Wasserstein GAN", "Arjovsky, Martin and Chintala, Soumith and Bottou, Léon", 2017, "1701.07875"),
        ),
        _recipe(
            "wgan-gp",
            "_gan:wgan_gp",
            "Wasserstein GAN with gradient penalty, 5 critic steps.",
            Paper(
                "Improved Training of Wasserstein GANs",
                "Gulrajani, Ishaan and Ahmed, Faruk and Arjovsky, Martin and Dumoulin, Vincent and Courville, Aaron",
                2017,
                arxiv="1704.00028",
            ),
        ),
        _recipe(
            "sngan",
            "_gan:sngan",
            "SN-GAN: residual discriminator with spectral norm, hinge loss.",
            Paper(
                "Spectral Normalization for Generative Adversarial Networks",
                "Miyato, Takeru and Kataoka, Toshiki and Koyama, Masanori and Yoshida, Yuichi",
                2018,
                arxiv="1802.05957",
            ),
        ),
        _recipe(
            "r3gan",
            "_gan:r3gan",
            "R3GAN: relativistic pairing with R1 and R2; no other trick.",
            Paper(
                "The GAN is dead; long live the GAN! A Modern GAN Baseline",
                "Huang, Yiwen and Gokaslan, Aaron and Kuleshov, Volodymyr and Tompkin, James",
                2025,
                arxiv="2501.05441",
            ),
        ),
        _recipe(
            "vqgan",
            "_models:vqgan",
            "VQGAN's PatchGAN for autoencoders: halved hinge, weight 0.8, starts at step 250,000.",
            Paper(
                "Taming Transformers for High-Resolution Image Synthesis",
                'Esser, Patrick and Rombach, Robin and Ommer, Bj{\\"o}rn',
                2020,
                arxiv="2012.09841",
            ),
        ),
        _recipe(
            "esrgan",
            "_models:esrgan",
            "ESRGAN: VGG-style discriminator, relativistic average loss, weight 0.005.",
            Paper(
                "ESRGAN: Enhanced Super-Resolution Generative Adversarial Networks",
                "Wang, Xintao and Yu, Ke and Wu, Shixiang and Gu, Jinjin and Liu, Yihao and Dong, Chao and "
                "Loy, Chen Change and Qiao, Yu and Tang, Xiaoou",
                2018,
                arxiv="1809.00219",
            ),
        ),
        _recipe(
            "real-esrgan",
            "_models:real_esrgan",
            "Real-ESRGAN: U-Net discriminator with spectral norm, weight 0.1.",
            Paper(
                "Real-ESRGAN: Training Real-World Blind Super-Resolution with Pure Synthetic Data",
                "Wang, Xintao and Xie, Liangbin and Dong, Chao and Shan, Ying",
                2021,
                arxiv="2107.10833",
            ),
        ),
        _recipe(
            "pix2pix",
            "_models:pix2pix",
            "pix2pix: conditional PatchGAN that sees input and output.",
            Paper(
                "Image-to-Image Translation with Conditional Adversarial Networks",
                "Isola, Phillip and Zhu, Jun-Yan and Zhou, Tinghui and Efros, Alexei A.",
                2016,
                arxiv="1611.07004",
            ),
        ),
        _recipe(
            "add",
            "_models:add",
            "Adversarial diffusion distillation: heads on frozen DINOv2 features, hinge, R1 on head inputs.",
            Paper(
                "Adversarial Diffusion Distillation",
                "Sauer, Axel and Lorenz, Dominik and Blattmann, Andreas and Rombach, Robin",
                2023,
                arxiv="2311.17042",
            ),
            requires=("timm",),
        ),
    ]
