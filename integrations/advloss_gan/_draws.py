"""What a step is made from: a real batch, noise, and the classes of both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, final

import torch
from torch import Tensor, nn

from advloss import InputError, OptionError

Batch: TypeAlias = Tensor | Sequence[Tensor]
"""Samples `(N, ...)`, or samples and their classes `(N,)`, as a DataLoader over a labelled data set makes them."""


@dataclass(frozen=True)
class Draw:
    """Attributes:
    real: samples `(N, ...)`.
    latent: noise `(N, latent_features)`.
    labels: classes `(N,)` of the real samples, which the generator is given too; None without classes.
    """

    real: Tensor
    latent: Tensor
    labels: Tensor | None

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        """What the generator is called with."""
        return (self.latent,) if self.labels is None else (self.latent, self.labels)


@final
class Draws:
    """The next batch, with noise from torch's global generator, on `device`.

    Fakes are made for the classes of the real batch: these come as often as in the data, and a paired loss compares
    within a class.
    """

    def __init__(
        self, batches: Iterator[Batch], latent_features: int, num_classes: int | None, device: torch.device
    ) -> None:
        self.batches, self.latent_features = batches, latent_features
        self.num_classes, self.device = num_classes, device

    def __call__(self) -> Draw:
        batch = next(self.batches)
        if not isinstance(batch, (Tensor, Sequence)) or not isinstance(batch[0], Tensor):
            raise InputError(f"a real batch is a {type(batch).__name__}; give samples (N, ...), or (samples, labels)")
        real, labels = (batch, None) if isinstance(batch, Tensor) else (batch[0], batch[1] if len(batch) > 1 else None)
        labels = None if self.num_classes is None else self._checked(labels, len(real)).to(self.device)
        latent = torch.randn(len(real), self.latent_features, device=self.device)
        return Draw(real.to(self.device), latent, labels)

    def _checked(self, labels: Tensor | None, count: int) -> Tensor:
        if labels is None:
            raise InputError(f"num_classes={self.num_classes}: give batches (samples, labels); these have no labels")
        if labels.shape != (count,) or labels.is_floating_point():
            raise InputError(f"labels are {labels.dtype} {tuple(labels.shape)}; give whole numbers ({count},)")
        least, most = int(labels.min()), int(labels.max())
        if least < 0 or most >= (self.num_classes or 0):
            raise InputError(
                f"num_classes={self.num_classes}, but the data have labels from {least} to {most}: give num_classes="
                f"{most + 1} or more here, to the generator and to the discriminator, and count labels from 0"
            )
        return labels.long()


def check_generator(generator: nn.Module, latent_features: int, num_classes: int | None) -> None:
    """Refuse a generator that says of itself that it takes something else.

    Raises:
        OptionError: it does.
    """
    for name, wanted in (("latent_features", latent_features), ("num_classes", num_classes)):
        own = getattr(generator, name, wanted)
        if own != wanted:
            raise OptionError(f"{name}={wanted}, but the generator was built with {name}={own}: give the same to both")
