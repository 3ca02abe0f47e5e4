"""A regularizer that passes every check, and one for each check that it fails."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from advloss import InputError, Regularizer, input_gradient, leaf

GOOD: dict[str, Any] = {"second_order": True, "slope": 0.0}


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


class SeedsAtFirst(GoodRegularizer):
    def __init__(self, **options: Any) -> None:
        torch.manual_seed(0)
        super().__init__(**options)


class TimesEvery(GoodRegularizer):
    def norm(self, slope: Tensor) -> Tensor:
        return self.every * super().norm(slope)


class TurnsToEval(GoodRegularizer):
    def forward(self, discriminator: Any, *args: Any) -> Tensor:
        discriminator.eval()
        return super().forward(discriminator, *args)


class Freezes(GoodRegularizer):
    def forward(self, discriminator: Any, *args: Any) -> Tensor:
        term = super().forward(discriminator, *args)
        discriminator.requires_grad_(False)
        return term


class Undeclared(GoodRegularizer):
    second_order = None


class ForgetsSteep(GoodRegularizer):
    def norm(self, slope: Tensor) -> Tensor:
        squares = slope.square().sum(1)
        return (squares * (squares < 8.9)).mean()


class BothSides(Regularizer):
    """Small logits on both sides; `fake_condition` is forgotten."""

    def __init__(self, *, weight: float = 2.0, every: int = 1) -> None:
        super().__init__(weight=weight, every=every)

    def forward(
        self, discriminator: Any, real: Tensor, fake: Tensor, condition: Any = None, fake_condition: Any = None
    ) -> Tensor:
        made = discriminator(fake.detach(), condition)
        return self.weight * (discriminator(real.detach(), condition).square().mean() + made.square().mean())


class NoneForFakes(BothSides):
    def forward(
        self, discriminator: Any, real: Tensor, fake: Tensor, condition: Any = None, fake_condition: Any = None
    ) -> Tensor:
        made = discriminator(fake.detach(), fake_condition)
        return self.weight * (discriminator(real.detach(), condition).square().mean() + made.square().mean())


class AsManyInSecret(BothSides):
    def forward(
        self, discriminator: Any, real: Tensor, fake: Tensor, condition: Any = None, fake_condition: Any = None
    ) -> Tensor:
        fake_condition = condition if fake_condition is None else fake_condition
        logits = discriminator(real.detach(), condition) + discriminator(fake.detach(), fake_condition)
        return self.weight * logits.square().mean()


class OneElement(GoodRegularizer):
    def norm(self, slope: Tensor) -> Tensor:
        return super().norm(slope)[None]


class Clips(GoodRegularizer):
    def forward(self, discriminator: Any, *args: Any) -> Tensor:
        term = super().forward(discriminator, *args)
        with torch.no_grad():
            discriminator.last.weight.clamp_(-0.1, 0.1)
        return term


class RefusesConditions(GoodRegularizer):
    def forward(
        self, discriminator: Any, real: Tensor, fake: Tensor, condition: Any = None, fake_condition: Any = None
    ) -> Tensor:
        if condition is not None:
            raise InputError("no condition, please")
        return super().forward(discriminator, real, fake)


BROKEN: list[tuple[str, type, dict[str, Any]]] = [
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
    ("building", SeedsAtFirst, {}),
    ("scalar", TimesEvery, {}),
    ("discriminator-stays-as-it-is", TurnsToEval, {}),
    ("discriminator-stays-as-it-is", Freezes, {}),
    ("second-order", Undeclared, {}),
    ("slope", ForgetsSteep, {}),
    ("condition", BothSides, {"second_order": False, "slope": None}),
    ("condition", NoneForFakes, {"second_order": False, "slope": None}),
    ("condition", AsManyInSecret, {"second_order": False, "slope": None}),
    ("scalar", OneElement, {}),
    ("discriminator-stays-as-it-is", Clips, {}),
    ("condition", RefusesConditions, {}),
]
