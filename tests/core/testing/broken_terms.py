"""Losses, regularizers, augmentations and recipes: one of each that passes, and one for each check that it catches."""

from __future__ import annotations

import functools
import random
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from advloss import Augmentation, InputError, Loss, Recipe, Regularizer, input_gradient, leaf

LOSS: dict[str, Any] = {"equilibrium": 0.0}


class GoodLoss(Loss):
    """The non-saturating logistic loss."""

    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real).mean() + softplus(fake).mean()

    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return softplus(-fake).mean()


class Vector(GoodLoss):
    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return softplus(-fake)


class WrongWay(GoodLoss):
    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return softplus(fake).mean()


class WrongSides(GoodLoss):
    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        return super().discriminator_term(fake, real)


class HalfDetached(GoodLoss):
    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real).mean() + 0.5 * softplus(fake).mean() + 0.5 * softplus(fake.detach()).mean()


class Broadcasts:
    """No `Loss`: nothing checks its shapes."""

    paired = False

    def discriminator(self, real_logits: Tensor, fake_logits: Tensor) -> Tensor:
        return (softplus(-real_logits) + softplus(fake_logits)).mean()

    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        return softplus(-fake_logits).mean()


class ComparesInSecret(Broadcasts):
    def generator(self, fake_logits: Tensor, real_logits: Tensor | None = None) -> Tensor:
        shift = 0 if real_logits is None else real_logits.mean()
        return softplus(shift - fake_logits).mean()


class Average(GoodLoss):
    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake.mean() - real).mean() + softplus(fake - real.mean()).mean() + real.square().mean()


class Log(GoodLoss):
    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        return -torch.log(torch.sigmoid(real)).mean() - torch.log(1 - torch.sigmoid(fake)).mean()


class WritesLogits(GoodLoss):
    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        with torch.no_grad():
            real.mul_(2)
        return super().discriminator_term(real, fake)


class SeedsLoss(GoodLoss):
    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        torch.manual_seed(0)
        return super().discriminator_term(real, fake)


LOSSES: list[tuple[str, type, dict[str, Any]]] = [
    ("scalars", Vector, {}),
    ("direction", WrongWay, {}),
    ("direction", WrongSides, {}),
    ("gradients", HalfDetached, {}),
    ("equilibrium", GoodLoss, {"equilibrium": None}),
    ("equilibrium", GoodLoss, {"equilibrium": 0.5}),
    ("broadcasting-is-refused", Broadcasts, {}),
    ("paired", GoodLoss, {"paired": True}),
    ("paired", ComparesInSecret, {}),
    ("batch-coupling", Average, {}),
    ("batch-coupling", GoodLoss, {"batch_coupled": True}),
    ("extreme-logits", Log, {}),
    ("global-state", WritesLogits, {}),
    ("global-state", SeedsLoss, {}),
    ("regularizers", GoodLoss, {"regularizers": {"no-such-term": {}}}),
]

REGULARIZER: dict[str, Any] = {"second_order": True, "slope": 0.0}


class GoodRegularizer(Regularizer):
    """R1."""

    second_order = "samples"

    def __init__(self, *, weight: float = 2.0, every: int = 1) -> None:
        super().__init__(weight=weight, every=every)

    def forward(
        self, discriminator: Any, real: Tensor, fake: Tensor, condition: Any = None, fake_condition: Any = None
    ) -> Tensor:
        points = self.points(real)
        (slope,) = input_gradient(discriminator(points, condition), [points])
        return self.weight / 2 * self.norm(slope)

    def points(self, real: Tensor) -> Tensor:
        return leaf(real.detach())

    def norm(self, slope: Tensor) -> Tensor:
        return slope.square().sum(1).mean()


class Unweighted(GoodRegularizer):
    def norm(self, slope: Tensor) -> Tensor:
        return super().norm(slope) / self.weight


class Negative(GoodRegularizer):
    def norm(self, slope: Tensor) -> Tensor:
        return -super().norm(slope)


class Detached(GoodRegularizer):
    def norm(self, slope: Tensor) -> Tensor:
        return super().norm(slope.detach())


class ReachesMaker(GoodRegularizer):
    def points(self, real: Tensor) -> Tensor:
        return real if real.requires_grad else leaf(real)


class LeavesGradients(GoodRegularizer):
    def forward(self, discriminator: Any, real: Tensor, *rest: Any) -> Tensor:
        term = super().forward(discriminator, real, *rest)
        discriminator(real).sum().backward()
        return term


class SumOverBatch(GoodRegularizer):
    def norm(self, slope: Tensor) -> Tensor:
        return slope.square().sum()


class SlopeOne(GoodRegularizer):
    def norm(self, slope: Tensor) -> Tensor:
        return (torch.linalg.vector_norm(slope, dim=1) - 1).square().mean()


class Root(GoodRegularizer):
    def norm(self, slope: Tensor) -> Tensor:
        return slope.square().sum(1).sqrt().mean()


class KeepsCondition(GoodRegularizer):
    def forward(self, discriminator: Any, real: Tensor, fake: Tensor, *conditions: Any) -> Tensor:
        return super().forward(discriminator, real, fake)


class CountsCalls(GoodRegularizer):
    calls = 0

    def norm(self, slope: Tensor) -> Tensor:
        self.calls += 1
        return self.calls * super().norm(slope)


class Explodes(GoodRegularizer):
    def norm(self, slope: Tensor) -> Tensor:
        return super().norm(slope) * (1e30 if slope.abs().max() < 0.7 else 1e20) ** 2


REGULARIZERS: list[tuple[str, type, dict[str, Any]]] = [
    ("scalar", Unweighted, {}),
    ("scalar", Negative, {}),
    ("reaches-the-discriminator", Detached, {}),
    ("reaches-the-discriminator", GoodRegularizer, {"constraint": True}),
    ("leaves-the-maker-alone", ReachesMaker, {}),
    ("discriminator-stays-as-it-is", LeavesGradients, {}),
    ("accumulation", SumOverBatch, {}),
    ("accumulation", GoodRegularizer, {"batch_coupled": True}),
    ("slope", SlopeOne, {}),
    ("slope", GoodRegularizer, {"slope": None}),
    ("zero-gradient", Root, {}),
    ("second-order", GoodRegularizer, {"second_order": False}),
    ("condition", KeepsCondition, {}),
    ("saved-state", CountsCalls, {}),
    ("training", Explodes, {}),
]

AUGMENTATION: dict[str, Any] = {"dims": (2,)}


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


AUGMENTATIONS: list[tuple[str, type, dict[str, Any]]] = [
    ("dimensions", Crops, {}),
    ("dimensions", AnyShape, {}),
    ("dimensions", GoodAugmentation, {"dims": (1, 2)}),
    ("gradients", RoundsSamples, {}),
    ("samples-are-separate", Mixes, {}),
    ("randomness", PythonGain, {}),
    ("randomness", SeedsGain, {}),
    ("saved-state", Fades, {}),
    ("training", CutsGraph, {}),
]


def good_recipe(*, num_classes: int | None = None) -> Recipe:
    """Any combination."""
    return Recipe(discriminator=("mlp", {"width": 8, "num_classes": num_classes}), regularizers={"r1": {}})


def unknown_option(*, num_classes: int | None = None) -> Recipe:
    return Recipe(discriminator=("mlp", {"widht": 8}))


def unknown_loss(*, num_classes: int | None = None) -> Recipe:
    return Recipe(discriminator="mlp", loss="no-such-loss")


def no_optimizer(*, num_classes: int | None = None) -> Recipe:
    return Recipe(discriminator="mlp", generator_optimizer=functools.partial(list))  # type: ignore[arg-type]


def impossible(*, num_classes: int | None = None) -> Recipe:
    return Recipe(discriminator="mlp", augmentations=("diffaugment",))


RECIPES: list[tuple[str, Any, dict[str, Any]]] = [
    ("components", unknown_option, {}),
    ("components", unknown_loss, {}),
    ("optimizers", no_optimizer, {}),
    ("training", impossible, {}),
]
