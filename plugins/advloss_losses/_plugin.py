"""Hooks of this plugin: what it offers, as data."""

from __future__ import annotations

from advloss import LossSpec, Paper, hookimpl

_GAN = Paper("Generative Adversarial Networks", "Goodfellow, Ian J. and others", 2014, arxiv="1406.2661")
_RELATIVISTIC = Paper(
    "The relativistic discriminator: a key element missing from standard GAN",
    "Jolicoeur-Martineau, Alexia",
    2018,
    arxiv="1807.00734",
)


@hookimpl
def advloss_losses() -> list[LossSpec]:
    return [
        LossSpec(
            name="non-saturating",
            target="advloss_losses._non_saturating:NonSaturating",
            summary="Non-saturating logistic loss: the generator raises log D.",
            paper=_GAN,
            equilibrium=0.0,
        ),
        LossSpec(
            name="saturating",
            target="advloss_losses._saturating:Saturating",
            summary="Minimax logistic loss: the generator maximizes what the discriminator minimizes.",
            paper=_GAN,
            equilibrium=0.0,
        ),
        LossSpec(
            name="hinge",
            target="advloss_losses._hinge:Hinge",
            summary="Hinge loss: the discriminator stops pushing beyond a margin of 1.",
            paper=Paper("Geometric GAN", "Lim, Jae Hyun and Ye, Jong Chul", 2017, arxiv="1705.02894"),
        ),
        LossSpec(
            name="least-squares",
            target="advloss_losses._least_squares:LeastSquares",
            summary="Least-squares loss: logits are regressed to 1 on real and to 0 on fake samples.",
            paper=Paper(
                "Least Squares Generative Adversarial Networks",
                "Mao, Xudong and Li, Qing and Xie, Haoran and others",
                2016,
                arxiv="1611.04076",
            ),
            equilibrium=0.5,
        ),
        LossSpec(
            name="wasserstein",
            target="advloss_losses._wasserstein:Wasserstein",
            summary="Wasserstein loss alone; the critic's slope must be bounded by a regularizer.",
            paper=Paper(
                "Wasserstein GAN",
                "Arjovsky, Martin and Chintala, Soumith and Bottou, Léon",
                2017,
                arxiv="1701.07875",
            ),
        ),
        LossSpec(
            name="wgan-gp",
            target="advloss_losses._wasserstein:Wasserstein",
            summary="Wasserstein loss with its gradient penalty.",
            paper=Paper(
                "Improved Training of Wasserstein GANs",
                "Gulrajani, Ishaan and Ahmed, Faruk and Arjovsky, Martin and Dumoulin, Vincent and Courville, Aaron",
                2017,
                arxiv="1704.00028",
            ),
            regularizers={"regularizers/gradient-penalty": {"weight": 10.0}},
        ),
        LossSpec(
            name="relativistic",
            target="advloss_losses._relativistic:RelativisticPairing",
            summary="Relativistic pairing loss: each fake against the real sample of its place (RpGAN, R3GAN).",
            paper=_RELATIVISTIC,
            paired=True,
        ),
        LossSpec(
            name="relativistic-average",
            target="advloss_losses._relativistic_average:RelativisticAverage",
            summary="Relativistic average loss: each logit against the other side's mean (RaGAN, ESRGAN).",
            paper=_RELATIVISTIC,
            paired=True,
            batch_coupled=True,
        ),
    ]
