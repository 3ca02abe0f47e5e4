"""A discriminator that passes every check, and one for each check of form and derivatives that it fails."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, logsigmoid, softplus

from advloss import select_condition

GOOD: dict[str, Any] = {"dims": (2,), "smallest": 3, "conditions": ("class",), "output": "logit"}


class Good(nn.Module):
    """A convolution, a smooth activation, a mean over positions."""

    def __init__(self, *, in_channels: int = 3, width: int = 4, num_classes: int | None = None) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.first, self.last = nn.Conv2d(in_channels, width, 3), nn.Linear(width, 1)
        self.embedding = None if num_classes is None else nn.Embedding(num_classes, width)

    def forward(self, samples: Tensor, condition: Any = None) -> Any:
        features = self.features(self.look(samples))
        logits = self.last(features).squeeze(1)
        if self.embedding is not None:
            logits = logits + (self.embedding(select_condition(condition, "class")) * features).sum(1)
        return self.answer(logits)

    def look(self, samples: Tensor) -> Tensor:
        return self.first(samples)

    def features(self, hidden: Tensor) -> Tensor:
        return softplus(hidden).mean((2, 3))

    def answer(self, logits: Tensor) -> Any:
        return logits


class _WrongGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * gradient


class _Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * gradient


class WrongGradient(Good):
    def answer(self, logits: Tensor) -> Tensor:
        return _WrongGradient.apply(logits)


class OneGradient(Good):
    def features(self, hidden: Tensor) -> Tensor:
        return _Square.apply(softplus(hidden)).mean((2, 3))


class Idle(Good):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.idle = nn.Parameter(torch.zeros(2))


class Breaks(Good):
    def look(self, samples: Tensor) -> Tensor:
        return self.first(samples) if float(samples.sum()) < 1e30 else samples


class SmallestFour(Good):
    smallest = 4


class TooFew(Good):
    def answer(self, logits: Tensor) -> Tensor:
        return logits[:-1]


class Probability(Good):
    def answer(self, logits: Tensor) -> Tensor:
        return torch.sigmoid(logits)


class BatchStd(Good):
    batch_coupled = True

    def answer(self, logits: Tensor) -> Tensor:
        return logits / logits.std()


class Coupled(Good):
    def answer(self, logits: Tensor) -> Tensor:
        return logits - 0.5 * logits.mean()


class Rounds(Good):
    def look(self, samples: Tensor) -> Tensor:
        return (self.first(samples) + 1000) - 1000


class Deaf(Good):
    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        return self.last(self.features(self.look(samples))).squeeze(1)


class Listens(Good):
    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        logits = super().forward(samples, condition)
        given = isinstance(condition, Tensor) and condition.is_floating_point() and condition.ndim == 2
        return logits + condition.sum(1) if given else logits


class RootOfZero(Good):
    def features(self, hidden: Tensor) -> Tensor:
        spread = (hidden - hidden.mean((2, 3), keepdim=True)).square().mean((2, 3)).sqrt()
        return super().features(hidden) + spread


class Cut(Good):
    def look(self, samples: Tensor) -> Tensor:
        return super().look(samples.detach())


class MixesAlong(Good):
    def answer(self, logits: Tensor) -> Tensor:
        return logits.cumsum(0)


class Squashed(Good):
    def answer(self, logits: Tensor) -> Tensor:
        return torch.tanh(logits)


class LogProbability(Good):
    def answer(self, logits: Tensor) -> Tensor:
        return logsigmoid(logits)


class OnlyTensors(Good):
    def forward(self, samples: Tensor, condition: Any = None) -> Any:
        if not isinstance(condition, Tensor):
            condition = torch.zeros(len(samples), dtype=torch.long)
        return super().forward(samples, condition)


class AnyDims(Good):
    """Takes lines and images."""

    def __init__(self, *, dims: int = 2, num_classes: int | None = None) -> None:
        if dims not in (1, 2):
            raise ValueError(dims)
        super().__init__(num_classes=num_classes)
        self.dims = dims
        if dims == 1:
            self.first = nn.Conv1d(3, 4, 3)

    def features(self, hidden: Tensor) -> Tensor:
        return softplus(hidden).flatten(2).mean(2)


class Lines(AnyDims):
    """The same, by another option."""

    def __init__(self, *, lines: bool = False, num_classes: int | None = None) -> None:
        super().__init__(dims=1 if lines else 2, num_classes=num_classes)


class Named(Good):
    def answer(self, logits: Tensor) -> Any:
        return {"logits": logits}


class Frozen(Good):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.requires_grad_(False)


class Infinite(Good):
    def answer(self, logits: Tensor) -> Tensor:
        return logits / 0


class EvenOnly(Good):
    def features(self, hidden: Tensor) -> Tensor:
        return super().features(hidden) / (hidden.shape[-1] % 2)


class Exponential(Good):
    def features(self, hidden: Tensor) -> Tensor:
        return torch.exp(10 * hidden).mean((2, 3))


class Blind(Good):
    def look(self, samples: Tensor) -> Tensor:
        return super().look(samples * 0)


class RootOfWeight(Good):
    def answer(self, logits: Tensor) -> Tensor:
        bias = self.last.bias
        return logits + (bias - bias.detach()).abs().sqrt()


class Untrained(Good):
    def answer(self, logits: Tensor) -> Tensor:
        return logits + sum((parameter * 0).sum() for parameter in self.parameters())

    def look(self, samples: Tensor) -> Tensor:
        return conv2d(samples, self.first.weight.detach())

    def forward(self, samples: Tensor, condition: Any = None) -> Tensor:
        return self.answer(self.features(self.look(samples)) @ self.last.weight[0].detach())


BROKEN: list[tuple[str, type[nn.Module], dict[str, Any]]] = [
    ("gradient", WrongGradient, {}),
    ("gradient", Cut, {}),
    ("double-backward", OneGradient, {}),
    ("double-backward", Good, {"double_backward": False}),
    ("every-parameter-learns", Idle, {}),
    ("compile", Breaks, {}),
    ("compile", Good, {"compiles": False}),
    ("defaults-are-as-declared", SmallestFour, {}),
    ("defaults-are-as-declared", Good, {"fixed_size": True}),
    ("defaults-are-as-declared", Good, {"pretrained": True}),
    ("dimensions", TooFew, {}),
    ("dimensions", Good, {"output": "map"}),
    ("dimensions", Good, {"output": "multi-scale"}),
    ("dimensions", Good, {"dims": (1, 2)}),
    ("dimensions", Good, {"dims": (1,)}),
    ("batch-of-one", BatchStd, {"batch_coupled": True}),
    ("sizes", Good, {"smallest": 2}),
    ("sizes", Good, {"smallest": 4}),
    ("autocast", Rounds, {}),
    ("conditions", Deaf, {}),
    ("conditions", Good, {"conditions": ()}),
    ("conditions", Good, {"conditions": ("class", "vector")}),
    ("conditions", Listens, {}),
    ("batch-coupling", Coupled, {}),
    ("batch-coupling", Good, {"batch_coupled": True}),
    ("extreme-samples", RootOfZero, {}),
    ("raw-logits", Probability, {}),
    ("frozen-features", Good, {"features": True}),
    ("training", Cut, {}),
    ("dimensions", AnyDims, {}),
    ("dimensions", Lines, {"examples": ({}, {"lines": True})}),
    ("conditions", OnlyTensors, {}),
    ("batch-coupling", MixesAlong, {}),
    ("raw-logits", Squashed, {}),
    ("raw-logits", LogProbability, {}),
    ("dimensions", Named, {}),
    ("dimensions", Good, {"dims": (2, 1)}),
    ("dimensions", Infinite, {}),
    ("every-parameter-learns", Frozen, {}),
    ("sizes", EvenOnly, {}),
    ("extreme-samples", Exponential, {}),
    ("conditions", Good, {"conditions": (), "examples": ({"num_classes": 3},)}),
    ("conditions", Idle, {"conditions": (), "examples": ({"num_classes": 3},)}),
    ("training", Blind, {}),
    ("training", RootOfWeight, {}),
    ("training", Untrained, {}),
]
