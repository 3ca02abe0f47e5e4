"""Hooks of this plugin: what it offers, as data. No torch is imported here, so that `advloss list` stays fast."""

from __future__ import annotations

import math

from advloss import DiscriminatorSpec, LossSpec, Paper, hookimpl


@hookimpl
def advloss_discriminators() -> list[DiscriminatorSpec]:
    return [
        DiscriminatorSpec(
            name="wavelet",
            target="advloss_wavelet._discriminator:WaveletDiscriminator",
            summary="Judges the bands of a Haar transform, in patches.",
            paper=Paper(
                "SWAGAN: A Style-based Wavelet-driven Generative Model",
                "Gal, Rinon and Hochberg, Dana Cohen and Bermano, Amit and Cohen-Or, Daniel",
                2021,
                arxiv="2102.06108",
            ),
            examples=({"width": 4},),
            dims=(2,),
            smallest=3,
            output="map",
            api=1,
        )
    ]


@hookimpl
def advloss_losses() -> list[LossSpec]:
    return [
        LossSpec(
            name="wavelet-smooth",
            target="advloss_wavelet._loss:WaveletSmooth",
            summary="Logistic loss with one-sided label smoothing.",
            paper=Paper(
                "Improved Techniques for Training GANs",
                "Salimans, Tim and Goodfellow, Ian and Zaremba, Wojciech and Cheung, Vicki and Radford, Alec and Chen, Xi",
                2016,
                arxiv="1606.03498",
            ),
            equilibrium=math.log(0.9 / 1.1),
            api=1,
        )
    ]
