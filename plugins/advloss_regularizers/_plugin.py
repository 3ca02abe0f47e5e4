"""Hooks of this plugin: what it offers, as data."""

from __future__ import annotations

from advloss import Paper, RegularizerSpec, hookimpl

_MESCHEDER = Paper(
    "Which Training Methods for GANs do actually Converge?",
    "Mescheder, Lars and Geiger, Andreas and Nowozin, Sebastian",
    2018,
    arxiv="1801.04406",
)


@hookimpl
def advloss_regularizers() -> list[RegularizerSpec]:
    return [
        RegularizerSpec(
            name="r1",
            target="advloss_regularizers._r1:R1",
            summary="R1: squared gradient on real samples, exact or by finite differences.",
            paper=_MESCHEDER,
            second_order=True,
            slope=0.0,
        ),
        RegularizerSpec(
            name="r2",
            target="advloss_regularizers._r2:R2",
            summary="R2: squared gradient on fake samples, exact or by finite differences.",
            paper=_MESCHEDER,
            second_order=True,
            slope=0.0,
        ),
        RegularizerSpec(
            name="gradient-penalty",
            target="advloss_regularizers._gradient_penalty:GradientPenalty",
            summary="WGAN-GP's penalty: slope 1 between real and fake samples.",
            paper=Paper(
                "Improved Training of Wasserstein GANs",
                "Gulrajani, Ishaan and Ahmed, Faruk and Arjovsky, Martin and Dumoulin, Vincent and Courville, Aaron",
                2017,
                arxiv="1704.00028",
            ),
            second_order=True,
            slope=1.0,
        ),
        RegularizerSpec(
            name="dragan",
            target="advloss_regularizers._dragan:Dragan",
            summary="DRAGAN's penalty: slope 1 around real samples.",
            paper=Paper(
                "On Convergence and Stability of GANs",
                "Kodali, Naveen and Abernethy, Jacob and Hays, James and Kira, Zsolt",
                2017,
                arxiv="1705.07215",
            ),
            second_order=True,
            slope=1.0,
            batch_coupled=True,
        ),
        RegularizerSpec(
            name="lecam",
            target="advloss_regularizers._lecam:LeCam",
            summary="LeCam: logits are held near the other side's moving average; for limited data.",
            paper=Paper(
                "Regularizing Generative Adversarial Networks under Limited Data",
                "Tseng, Hung-Yu and Jiang, Lu and Liu, Ce and Yang, Ming-Hsuan and Yang, Weilong",
                2021,
                arxiv="2104.03310",
            ),
        ),
        RegularizerSpec(
            name="weight-clipping",
            target="advloss_regularizers._weight_clipping:WeightClipping",
            summary="Clamps the discriminator's parameters after each step, as the first Wasserstein GAN.",
            paper=Paper(
                "Wasserstein GAN",
                "Arjovsky, Martin and Chintala, Soumith and Bottou, Léon",
                2017,
                arxiv="1701.07875",
            ),
            constraint=True,
        ),
    ]
