"""Minibatch standard deviation (Karras et al. 2018)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from advloss_discriminators._options import check_positive


@final
class MinibatchStd(nn.Module):
    """Appends how much a group of samples differs, as one constant channel (arXiv:1710.10196, section 3).

    Of N samples, those whose index is equal modulo the number of groups form a group. Where `group_size` does not
    divide N, groups differ in size by one. The mean over positions and channels of their standard deviation
    (biased, with 1e-8 added under the root) is appended: 1e-4 for a batch of one.

    Args:
        group_size: the most samples of a group.
    """

    def __init__(self, *, group_size: int = 4) -> None:
        super().__init__()
        check_positive(group_size=group_size)
        self.group_size = group_size

    def forward(self, features: Tensor) -> Tensor:
        """`(N, C, ...)` to `(N, C + 1, ...)`."""
        count = len(features)
        groups = -(-count // self.group_size)
        rows = -(-count // groups)
        shape = (rows, groups, -1)
        members = pad(features.flatten(1), (0, 0, 0, rows * groups - count)).reshape(shape)
        present = (torch.arange(rows * groups, device=features.device) < count).to(features.dtype).view(shape)
        sizes = present.sum(0)
        deviations = (members - members.sum(0) / sizes) * present
        spread = (deviations.square().sum(0) / sizes + 1e-8).sqrt().mean(1)
        channel = spread.repeat(rows)[:count].view(count, *[1] * (features.dim() - 1))
        return torch.cat([features, channel.expand(count, 1, *features.shape[2:])], dim=1)
