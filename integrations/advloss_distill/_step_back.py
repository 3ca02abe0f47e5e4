"""The end of a distillation: a part of the way back in weight space."""

from __future__ import annotations

import torch
from torch import nn

from advloss import OptionError
from advloss_distill._lora import has_lora


@torch.no_grad()
def step_back(student: nn.Module, start: nn.Module, share: float) -> None:
    """Move the student's weights a share of the way back to where it began (WiSE-FT, arXiv:2109.01903, equation 1).

    It knows less of the data by heart then, and is as good or better where `share` is small.

    Args:
        student: of any device; changed in place, parameters alone.
        start: a network built alike, as the student was before the adversary came.
        share: 0 is the student, 1 the start.

    Raises:
        OptionError: a share that is none, networks built otherwise, or adapters: the weights that they add are products, and halfway between
            two products lies no product of halves. Nothing has changed.
    """
    if not 0 <= share <= 1:
        raise OptionError(f"share={share}: give a share of the way back, from 0 to 1")
    if has_lora(student) or has_lora(start):
        raise OptionError(
            "an adapter's weights are products of two matrices, and do not lie on a line between two adapters: merge both "
            "networks first (merge_lora); to where an unmerged adapter began, scale its lora_B by 1 - share"
        )
    own, there = dict(student.named_parameters()), dict(start.named_parameters())
    if {name: weight.shape for name, weight in own.items()} != {name: weight.shape for name, weight in there.items()}:
        raise OptionError(
            "the start's parameters are not those of the student: give it as it was before, and as it was built"
        )
    for name, weight in own.items():
        weight.lerp_(there[name].to(weight), share)
