"""Small discriminators that show what a regularizer does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from advloss._condition import Condition


class Curved(nn.Module):
    """A smooth network on vectors, of slopes around 2; remembers what it was called with."""

    def __init__(self, features: int = 3) -> None:
        super().__init__()
        with torch.random.fork_rng([]):
            torch.manual_seed(0)
            self.first, self.last = nn.Linear(features, 8), nn.Linear(8, 1)
        with torch.no_grad():
            self.last.weight.mul_(8)
        self.seen: list[tuple[Tensor, Any]] = []

    def forward(self, samples: Tensor, condition: Condition | None = None) -> Tensor:
        self.seen.append((samples.detach(), condition))
        return self.last(self.activate(self.first(samples))).squeeze(1) + 0.5

    def activate(self, hidden: Tensor) -> Tensor:
        """Of the hidden layer."""
        return torch.tanh(hidden)


class Once(Curved):
    """The same, without double backward."""

    def activate(self, hidden: Tensor) -> Tensor:
        """Of the hidden layer, as a fused kernel has it: its gradient has none."""
        activated: Tensor = _Tanh.apply(hidden)
        return activated


class Linear(nn.Module):
    """``slope x_0 + offset``: its gradient is `slope` everywhere, and still has one by the parameters."""

    def __init__(self, slope: float, offset: float = 0.0, features: int = 3) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([slope] + [0.0] * (features - 1)))
        self.bias = nn.Parameter(torch.tensor(offset))

    def forward(self, samples: Tensor, condition: Condition | None = None) -> Tensor:
        return samples @ self.weight + self.bias


class SameNoise(TorchDispatchMode):
    """Inside, every sample of a batch draws the same random numbers, whatever the size of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name.startswith(("rand", "uniform", "normal", "bernoulli")) and isinstance(out, Tensor) and out.ndim:
            self.calls += 1
            generator = torch.Generator().manual_seed(self.calls)
            draw = torch.randn if name.startswith(("randn", "normal")) else torch.rand
            out.copy_(draw(out.shape[1:], generator=generator).to(out.dtype).expand_as(out))
        return out


class _Tanh(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor) -> Tensor:
        out = torch.tanh(hidden)
        ctx.save_for_backward(out)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (out,) = ctx.saved_tensors
        return gradient * (1 - out**2)
