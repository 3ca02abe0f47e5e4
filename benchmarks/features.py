"""A discriminator on frozen features: what of it is computed, and how often."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from torch import Tensor
from torch.nn.functional import relu

from advloss import Adversary, create_discriminator
from benchmarks._harness import Row, Settings, compare, gradients
from benchmarks._players import ByHand, Game, Ours, adam


class HeadsOnly(Game):
    """What is compared is the gradient of the heads: nothing else trains."""

    def numbers(self) -> Mapping[str, Tensor]:
        heads = gradients(self.discriminator_optimizer, self.discriminator.heads.parameters())
        made = gradients(self.optimizer, self.generator.parameters())
        return {**self.losses, "generator's gradient": made, "heads' gradient": heads}


class OurHeads(HeadsOnly, Ours):
    """The three lines."""


class Textbook(HeadsOnly, ByHand):
    """Features of both batches in the discriminator's step, and of the fakes again in the generator's."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.discriminator.features.requires_grad_(False)
        self.other = adam(self.discriminator.heads)

    def generator_loss(self, fake: Tensor) -> Tensor:
        self.discriminator.features.requires_grad_(False)
        return -_mean([logits.mean() for logits in self.discriminator(fake)])

    def discriminator_loss(self, fake: Tensor) -> Tensor:
        self.discriminator.features.requires_grad_(False)
        pairs = zip(self.discriminator(self.real), self.discriminator(fake))
        return _mean([relu(1 - real).mean() + relu(1 + made).mean() for real, made in pairs])


class UnderGrad(Textbook):
    """The same with real samples that require a gradient, as R1 by samples has them: their features have a graph."""

    def discriminator_loss(self, fake: Tensor) -> Tensor:
        self.real = self.real.detach().requires_grad_()
        return super().discriminator_loss(fake)


def _mean(terms: list[Tensor]) -> Tensor:
    return sum(terms[1:], start=terms[0]) / len(terms)


def rows(settings: Settings) -> Iterator[Row]:
    """The discriminator of StyleGAN-T and ADD, on a ViT-S with random weights, which take as long as others."""
    side, batch = settings.size(64, 16), 2
    backbone = "test_vit" if settings.short else "vit_small_patch16_224"
    options: dict[str, Any] = {"backbone": backbone, "pretrained": False, "resolution": settings.size(112, 32)}
    options |= {"blocks": (0, 1)} if settings.short else {}
    size = (side, batch, settings.device)
    ours = partial(OurHeads, partial(Adversary, ("dino", options), "hinge"), *size)
    network = partial(create_discriminator, "dino", **options)
    work = (
        f"hinge, dino on {backbone} at {options['resolution']} x {options['resolution']}, both players, batch {batch}"
    )
    textbook = partial(Textbook, network, *size)
    yield compare(work, ours, "features in both players' steps", textbook, settings)
    under = partial(UnderGrad, network, *size)
    yield compare(
        work,
        ours,
        "features in both players' steps, under grad on reals",
        under,
        settings,
        target=0.75,
    )
