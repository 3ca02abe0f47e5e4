"""What a lesson says, and the training that all of them share."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from advloss import Adversary
from advloss_gan._trainer import GANResult, train_gan

Figures = dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """Attributes:
    name: of the lesson.
    claim: what should be seen in the figures.
    rows: figures by training.
    holds: whether the claim is seen in them.
    """

    name: str
    claim: str
    rows: Mapping[str, Figures]
    holds: bool

    def table(self) -> str:
        """As text: a row a training."""
        columns = list(dict.fromkeys(column for row in self.rows.values() for column in row))
        table = [["", *columns]]
        for name, row in self.rows.items():
            table.append([name, *(f"{row[column]:.4g}" if column in row else "" for column in columns)])
        name_width, *widths = (max(map(len, cells)) for cells in zip(*table))
        lines = [
            name.ljust(name_width) + "".join(f"{c:>{width + 3}}" for c, width in zip(cells, widths))
            for name, *cells in table
        ]
        return "\n".join([*lines, f"{self.claim} {'It does.' if self.holds else 'NOT seen here.'}"])


def play(
    generator: nn.Module,
    discriminator: Any,
    real: Iterable[Any],
    *,
    latent: int,
    steps: int,
    loss: Any = "non-saturating",
    regularizers: Any = (),
    augmentations: Any = (),
    lr: float = 1e-3,
    discriminator_lr: float | None = None,
    beta1: float = 0.5,
    discriminator_steps: int = 1,
    num_classes: int | None = None,
    ema_decay: float = 0.99,
    on_step: Callable[[int, nn.Module], None] | None = None,
    log: Path | None = None,
) -> tuple[nn.Module, Adversary]:
    """Train both players with Adam at constant rates; returns the averaged generator and the adversary.

    Raises:
        SystemExit: as `whole` does.
    """
    adam = functools.partial(torch.optim.Adam, betas=(beta1, 0.9 if beta1 == 0 else 0.999), fused=True)
    adversary = Adversary(
        discriminator,
        loss,
        regularizers,
        augmentations,
        optimizer=functools.partial(adam, lr=discriminator_lr or lr),
    )
    if log is not None:
        log.unlink(missing_ok=True)
    result = train_gan(
        generator,
        adversary,
        real,
        latent_features=latent,
        steps=steps,
        num_classes=num_classes,
        discriminator_steps=discriminator_steps,
        generator_optimizer=functools.partial(adam, lr=lr),
        ema_decay=ema_decay,
        on_step=on_step,
        log=log,
    )
    return whole(result).generator, adversary


def whole(result: GANResult) -> GANResult:
    """`result`, whose figures can be compared.

    Raises:
        SystemExit: a signal ended the training early; with 130 after Ctrl-C, 143 after SIGTERM.
    """
    if result.interrupted:
        raise SystemExit(result.exit_status)
    return result


def slope(adversary: Adversary, fake: Tensor, real: Tensor) -> float:
    """What the generator is taught by: mean 2-norm of the gradient of its loss that reaches a sample."""
    leaf = fake.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(adversary.generator_loss(leaf, real), [leaf])
    return float(gradient.flatten(1).norm(dim=1).mean() * len(fake))


def accuracy(log: Path, steps: slice) -> float:
    """Mean of the discriminator's accuracy on real and fake samples over these steps of a log."""
    lines = [json.loads(line) for line in log.read_text().splitlines()[steps]]
    sides = ("discriminator/real_accuracy", "discriminator/fake_accuracy")
    return sum(line[side] for line in lines for side in sides) / (2 * len(lines))
