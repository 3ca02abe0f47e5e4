"""A loss that passes every check, and one for each check that it fails."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from advloss import InputError, Logits, Loss, as_scales

GOOD: dict[str, Any] = {"equilibrium": 0.0}


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


class SeedsAtFirst(GoodLoss):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__()


class Sums(GoodLoss):
    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real).sum() + softplus(fake).sum()


class SumsForGenerator(GoodLoss):
    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return softplus(-fake).sum()


class FirstScale(GoodLoss):
    def discriminator(self, real_logits: Logits, fake_logits: Logits) -> Tensor:
        return super().discriminator(as_scales(real_logits)[0], as_scales(fake_logits)[0])


class FirstScaleForGenerator(GoodLoss):
    def generator(self, fake_logits: Logits, real_logits: Logits | None = None) -> Tensor:
        return super().generator(as_scales(fake_logits)[0])


class AnyNumberOfScales(GoodLoss):
    def discriminator(self, real_logits: Logits, fake_logits: Logits) -> Tensor:
        pairs = zip(as_scales(real_logits), as_scales(fake_logits))
        return sum(GoodLoss().discriminator(real, fake) for real, fake in pairs)  # type: ignore[return-value]


class RaisesFakes(GoodLoss):
    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(-real).mean() + softplus(-fake).mean()


class AverageForGenerator(GoodLoss):
    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return softplus(-fake.mean())


class SeedsForGenerator(GoodLoss):
    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        torch.manual_seed(0)
        return super().generator_term(fake, real)


class Paired(GoodLoss):
    """Relativistic, and content without the real logits."""

    paired = True

    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(fake - real).mean()

    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return softplus((0 if real is None else real) - fake).mean()

    def generator(self, fake_logits: Logits, real_logits: Logits | None = None) -> Tensor:
        if real_logits is None:
            return softplus(-as_scales(fake_logits)[0]).mean()
        return super().generator(fake_logits, real_logits)


class NeedsRealInVain(GoodLoss):
    def generator(self, fake_logits: Logits, real_logits: Logits | None = None) -> Tensor:
        shift = 0.0 if real_logits is None else 1.0
        return super().generator(fake_logits) + shift


class OneElement(GoodLoss):
    def generator_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return super().generator_term(fake, real)[None]


class LowersReals(GoodLoss):
    def discriminator_term(self, real: Tensor, fake: Tensor) -> Tensor:
        return softplus(real).mean() + softplus(fake).mean()


class SaysNothing(GoodLoss):
    paired = None  # type: ignore[assignment]


class ComparesLargeReals(GoodLoss):
    def generator(self, fake_logits: Logits, real_logits: Logits | None = None) -> Tensor:
        large = real_logits is not None and bool(as_scales(real_logits)[0].mean() > 0.5)
        return super().generator(fake_logits) * (2 if large else 1)


class BroadcastsScales(GoodLoss):
    def discriminator(self, real_logits: Logits, fake_logits: Logits) -> Tensor:
        if len(as_scales(real_logits)) != len(as_scales(fake_logits)):
            raise InputError("give as many scales of both")
        pairs = zip(as_scales(real_logits), as_scales(fake_logits))
        return torch.stack([(softplus(-real) + softplus(fake)).mean() for real, fake in pairs]).mean()


BROKEN: list[tuple[str, type, dict[str, Any]]] = [
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
    ("building", SeedsAtFirst, {}),
    ("scales", FirstScale, {}),
    ("scales", FirstScaleForGenerator, {}),
    ("means", Sums, {}),
    ("means", SumsForGenerator, {}),
    ("broadcasting-is-refused", AnyNumberOfScales, {}),
    ("direction", RaisesFakes, {}),
    ("batch-coupling", AverageForGenerator, {}),
    ("global-state", SeedsForGenerator, {}),
    ("paired", Paired, {"paired": True}),
    ("paired", NeedsRealInVain, {}),
    ("scalars", OneElement, {}),
    ("direction", LowersReals, {}),
    ("paired", SaysNothing, {}),
    ("paired", ComparesLargeReals, {}),
    ("broadcasting-is-refused", BroadcastsScales, {}),
    ("regularizers", GoodLoss, {"regularizers": {"r1": {}}}),
]
