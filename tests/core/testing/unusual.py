"""Components that are right and look odd to a check: all of them pass."""

from __future__ import annotations

from typing import Any

import torch
from broken_discriminators import Good
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm


class WeightNorm(Good):
    """Torch's weight norm has wrong second derivatives by its own weights, which no regularizer asks for."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.first = weight_norm(self.first)


class SpectralNorm(Good):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.first = spectral_norm(self.first)


class Float32Inside(Good):
    """A norm in float32, whatever its input: as RMSNorm of language models."""

    def look(self, samples: Tensor) -> Tensor:
        hidden = super().look(samples).float()
        return (hidden * torch.rsqrt(hidden.square().mean(1, keepdim=True) + 1e-6)).to(samples.dtype)


class BeginsAtZero(Good):
    """Zeros in the last layer and in the embedding."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        for layer in (self.last, self.embedding):
            if layer is not None:
                nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.last.bias)


class ExtraState(Good):
    """What it saves beside tensors is no tensor."""

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: Any) -> None:
        pass


class Dropout(Good):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.drop = nn.Dropout(0.3)

    def look(self, samples: Tensor) -> Tensor:
        return super().look(self.drop(samples))


class OwnGenerator(Good):
    """Weights from a generator of its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.last.weight.copy_(torch.randn(self.last.weight.shape, generator=generator))


SHOWN: dict[str, Any] = {"examples": ({}, {"num_classes": 3})}
UNUSUAL: list[tuple[str, Any, dict[str, Any]]] = [
    ("discriminator", WeightNorm, SHOWN),
    ("discriminator", SpectralNorm, SHOWN),
    ("discriminator", Float32Inside, SHOWN),
    ("discriminator", BeginsAtZero, SHOWN),
    ("discriminator", ExtraState, SHOWN),
    ("discriminator", Dropout, SHOWN),
    ("discriminator", OwnGenerator, SHOWN),
]
