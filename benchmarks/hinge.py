"""The whole game with a PatchGAN and the hinge loss, against the loops that a person writes."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from torch import Tensor
from torch.nn.functional import relu

from advloss import Adversary, create_discriminator
from benchmarks._harness import Row, Settings, compare
from benchmarks._players import ByHand, Ours


class Best(ByHand):
    """One fake for both players, the discriminator frozen in the generator's step."""

    def generator_loss(self, fake: Tensor) -> Tensor:
        return -self.discriminator(fake).mean()

    def discriminator_loss(self, fake: Tensor) -> Tensor:
        return relu(1 - self.discriminator(self.real)).mean() + relu(1 + self.discriminator(fake)).mean()


class Plain(Best):
    """As most tutorials have it: a fake for each player, weight gradients that are thrown away, torch's default Adam."""

    freezes = False
    generates_again = True


def rows(settings: Settings) -> Iterator[Row]:
    """At two resolutions."""
    adversary, patch = partial(Adversary, "patch", "hinge"), partial(create_discriminator, "patch")
    for side, batch in ((64, settings.size(8, 1)), (settings.size(256, 32), 1)):
        size = (side, batch, settings.device)
        work = f"hinge, PatchGAN, both players, {side} x {side}, batch {batch}"
        best, ours = partial(Best, patch, *size), partial(Ours, adversary, *size)
        yield compare(work, ours, "best loop by hand", best, settings, target=1.01)
        ours = partial(ours, discriminator_first=True)
        plain = partial(Plain, patch, *size, discriminator_first=True, fused=None)
        yield compare(work, ours, "not frozen, fakes made twice", plain, settings, target=0.75)
