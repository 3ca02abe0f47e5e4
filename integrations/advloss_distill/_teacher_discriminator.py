"""LADD's discriminator: heads on the frozen teacher's own features of noised latents (arXiv:2403.12015)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

from torch import nn

from advloss_distill._family import Family
from advloss_distill._noised_heads import NoisedHeads
from advloss_distill._simulation import Conditions


@final
class TeacherDiscriminator(NoisedHeads):
    """Latents are noised, run through the teacher, and judged after each of its blocks (`NoisedHeads`).

    The teacher is no part of `state_dict`. R1 by ``method="finite-difference"``, or on the heads' inputs (`HeadR1`), needs no
    double backward through it.

    Args:
        family: calls the teacher.
        teacher: frozen; its parameters are switched off.
        example: conditions of one sample or more, to look at their sizes.
        blocks: places among ``family.blocks``, such as SANA-Sprint's ``(2, 8, 14, 19)``; None takes all.
        width: channels of a head.
        num_classes: for classes in place of prompts, their number.
        num_steps: of the student's kinds of steps (a simulation's), for heads that judge each by itself.
    """

    def __init__(
        self,
        family: Family,
        teacher: nn.Module,
        example: Conditions,
        *,
        blocks: Sequence[int] | None = None,
        width: int = 128,
        num_classes: int | None = None,
        num_steps: int | None = None,
    ) -> None:
        super().__init__(family, teacher, example, blocks, width, num_classes, num_steps)

    def _keep(self, network: nn.Module) -> None:
        self._teacher = (network.requires_grad_(False).eval(),)  # in a tuple: no part of this module

    @property
    def _network(self) -> nn.Module:
        return self._teacher[0]
