"""Hooks of this plugin: what it offers, as data."""

from __future__ import annotations

from advloss import LossSpec, Paper, hookimpl


@hookimpl
def advloss_losses() -> list[LossSpec]:
    return [
        LossSpec(
            name="hinge",
            target="advloss_losses._hinge:Hinge",
            summary="Hinge loss: the discriminator stops pushing beyond a margin of 1.",
            paper=Paper("Geometric GAN", "Lim, Jae Hyun and Ye, Jong Chul", 2017, arxiv="1705.02894"),
        ),
    ]
