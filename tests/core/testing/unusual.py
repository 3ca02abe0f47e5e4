"""Components that are right and look odd to a check: all of them pass."""

from __future__ import annotations

from typing import Any

import torch
from broken_discriminators import Good
from broken_losses import GoodLoss
from broken_regularizers import BothSides, GoodRegularizer
from torch import Tensor, nn
from torch.nn.functional import relu, softplus
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from advloss import InputError


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


class EmptyBelow(Good):
    """Samples below the smallest size raise nothing: they give NaN."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.first = nn.Conv2d(3, 4, 1)

    def look(self, samples: Tensor) -> Tensor:
        return super().look(samples)[..., 2:, 2:]


class OwnGenerator(Good):
    """Weights from a generator of its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            self.last.weight.copy_(torch.randn(self.last.weight.shape, generator=generator))


class Orthogonal(BothSides):
    """BigGAN's: it looks at weights, and at no sample (arXiv:1809.11096, equation 3)."""

    def forward(self, discriminator: Any, *args: Any) -> Tensor:
        total = torch.zeros(())
        for weight in discriminator.parameters():
            if weight.ndim >= 2:
                products = weight.flatten(1) @ weight.flatten(1).T
                total = total + (products - torch.diag(products.diagonal())).square().sum()
        return self.weight * total


class OneSided(GoodRegularizer):
    """WGAN-LP's: slopes below 1 are free (arXiv:1709.08894, equation 8)."""

    def norm(self, slope: Tensor) -> Tensor:
        return relu(torch.linalg.vector_norm(slope, dim=1) - 1).square().mean()


class OneCondition(GoodRegularizer):
    """It joins reals to fakes, and refuses what cannot be joined."""

    def forward(
        self, discriminator: Any, real: Tensor, fake: Tensor, condition: Any = None, fake_condition: Any = None
    ) -> Tensor:
        if fake_condition is not None or len(real) != len(fake):
            raise InputError("give as many of both under one condition")
        return super().forward(discriminator, (real + fake) / 2, fake, condition)


class Both(BothSides):
    """Real and fake samples in one batch."""

    def forward(
        self, discriminator: Any, real: Tensor, fake: Tensor, condition: Any = None, fake_condition: Any = None
    ) -> Tensor:
        made = condition if fake_condition is None else fake_condition
        conditions = None if condition is None else torch.cat([condition, made])
        return self.weight * discriminator(torch.cat([real, fake]).detach(), conditions).square().mean()


class Spread(GoodLoss):
    """Logits in units of their spread over the batch, an unbiased estimate."""

    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        spread = torch.cat([real, fake]).std() if len(real) > 1 else 1.0
        return softplus(-real / (1 + spread)).mean() + softplus(fake / (1 + spread)).mean()


SHOWN: dict[str, Any] = {"examples": ({}, {"num_classes": 3})}
UNUSUAL: list[tuple[str, Any, dict[str, Any]]] = [
    ("discriminator", WeightNorm, SHOWN),
    ("discriminator", SpectralNorm, SHOWN),
    ("discriminator", Float32Inside, SHOWN),
    ("discriminator", BeginsAtZero, SHOWN),
    ("discriminator", ExtraState, SHOWN),
    ("discriminator", Dropout, SHOWN),
    ("discriminator", OwnGenerator, SHOWN),
    ("discriminator", EmptyBelow, SHOWN),
    ("loss", Spread, {"batch_coupled": True}),
    ("regularizer", Orthogonal, {"second_order": False, "slope": None}),
    ("regularizer", OneSided, {"slope": 1.0}),
    ("regularizer", OneCondition, {}),
    ("regularizer", Both, {"second_order": False, "slope": None}),
]
