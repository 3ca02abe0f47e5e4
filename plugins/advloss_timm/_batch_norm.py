"""Batch normalization over small groups of the batch (StyleGAN-T, arXiv:2301.09515 section 3.2)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from advloss_timm._options import whole


@final
class BatchNormLocal(nn.Module):
    """``weight (x - mean) / sqrt(var + eps) + bias`` with a mean and a variance for each virtual batch and channel.

    The N samples are split, in order, into ``ceil(N / virtual_batch)`` groups whose sizes differ by one at most, so
    any N works (9 gives 5 and 4). There are no running statistics: training and evaluation are the same, and a sample's
    result depends on the others of its group. Statistics of half precision inputs are taken in float32.

    Args:
        channels: C.
        virtual_batch: the most samples that share statistics.
        eps: added to the (biased) variance.
    """

    def __init__(self, channels: int, virtual_batch: int = 8, eps: float = 1e-5) -> None:
        super().__init__()
        self.virtual_batch = whole("virtual_batch", virtual_batch)
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """`(N, C, L)` -> the same shape and type."""
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        groups = -(-len(x) // self.virtual_batch)
        size, larger = divmod(len(x), groups)
        head, tail = wide.tensor_split([larger * (size + 1)])  # `larger` groups of size + 1, then those of size
        parts = [self._normalize(part, n) for part, n in ((head, size + 1), (tail, size)) if len(part)]
        normal = parts[0] if len(parts) == 1 else torch.cat(parts)
        return (normal * self.weight[:, None] + self.bias[:, None]).to(x.dtype)

    def _normalize(self, x: Tensor, n: int) -> Tensor:
        grouped = x.unflatten(0, (-1, n))
        var, mean = torch.var_mean(grouped, dim=(1, 3), correction=0, keepdim=True)
        return ((grouped - mean) * torch.rsqrt(var + self.eps)).flatten(0, 1)

    def extra_repr(self) -> str:
        return f"{len(self.weight)}, virtual_batch={self.virtual_batch}, eps={self.eps}"
