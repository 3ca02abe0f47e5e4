"""An augmentation that passes every check, and one for each check that it fails."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor

from advloss import Augmentation, InputError

GOOD: dict[str, Any] = {"dims": (2,)}


class GoodAugmentation(Augmentation):
    """A random gain for each image."""

    def forward(self, samples: Tensor) -> Tensor:
        if samples.ndim != 4:
            raise InputError("give images")
        return samples * (0.5 + torch.rand(len(samples), 1, 1, 1).to(samples))


class Crops(GoodAugmentation):
    def forward(self, samples: Tensor) -> Tensor:
        return super().forward(samples)[..., 1:]


class AnyShape(Augmentation):
    def forward(self, samples: Tensor) -> Tensor:
        return samples * (0.5 + torch.rand(len(samples), *[1] * (samples.ndim - 1)).to(samples))


class RoundsSamples(GoodAugmentation):
    def forward(self, samples: Tensor) -> Tensor:
        return super().forward(samples + (samples.round() - samples).detach())


class Mixes(GoodAugmentation):
    def forward(self, samples: Tensor) -> Tensor:
        return super().forward(samples + 0.1 * samples.mean(0))


class PythonGain(GoodAugmentation):
    def forward(self, samples: Tensor) -> Tensor:
        return super().forward(samples) * random.random()


class SeedsGain(GoodAugmentation):
    def forward(self, samples: Tensor) -> Tensor:
        torch.manual_seed(0)
        return super().forward(samples)


class Fades(GoodAugmentation):
    calls = 0

    def forward(self, samples: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(samples) / self.calls


class CutsGraph(GoodAugmentation):
    def forward(self, samples: Tensor) -> Tensor:
        return super().forward(samples.detach())


class SeedsAtFirst(GoodAugmentation):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__()


class MixesAlong(GoodAugmentation):
    def forward(self, samples: Tensor) -> Tensor:
        return super().forward(samples.cumsum(0))


class OwnEntropy(GoodAugmentation):
    def forward(self, samples: Tensor) -> Tensor:
        generator = torch.Generator()
        generator.seed()
        return super().forward(samples) * torch.rand(1, generator=generator).to(samples)


class Infinite(GoodAugmentation):
    def forward(self, samples: Tensor) -> Tensor:
        return super().forward(samples) / 0


class RootOfZero(GoodAugmentation):
    def forward(self, samples: Tensor) -> Tensor:
        return super().forward(samples) + (samples * 0).abs().sqrt()


class InfiniteOnce(GoodAugmentation):
    calls = 0

    def forward(self, samples: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(samples) * (float("inf") if self.calls == 2 else 1.0)


BROKEN: list[tuple[str, type, dict[str, Any]]] = [
    ("dimensions", Crops, {}),
    ("dimensions", AnyShape, {}),
    ("dimensions", GoodAugmentation, {"dims": (1, 2)}),
    ("gradients", RoundsSamples, {}),
    ("samples-are-separate", Mixes, {}),
    ("randomness", PythonGain, {}),
    ("randomness", SeedsGain, {}),
    ("saved-state", Fades, {}),
    ("training", CutsGraph, {}),
    ("building", SeedsAtFirst, {}),
    ("samples-are-separate", MixesAlong, {}),
    ("randomness", OwnEntropy, {}),
    ("dimensions", Infinite, {}),
    ("training", RootOfZero, {}),
    ("training", InfiniteOnce, {}),
]
