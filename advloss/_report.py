"""What one discriminator step did."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Report:
    """The typed result of `Adversary.discriminator_step`. Tensors are scalars that stay on the device until read.

    Attributes:
        step: discriminator steps counted before this one.
        loss: the whole loss, regularizers included; None before the start step.
        real_logits, fake_logits: means over all logits.
        real_accuracy, fake_accuracy: shares of logits on their right side, as the loss decides.
        regularizers: the weighted terms that were due, by name, each times its `every`.
        grad_norm: 2-norm of the gradient before clipping; None while gradients accumulate.
        fake_grad_norm: how strongly the generator's loss pulled at its samples in the last backward so far: root
            mean square over samples of the 2-norm of the gradient by one of them, without the adversary's weight.
        signals: what the samples show, every 17 steps: `spread`, `diversity`, `class_diversity`, `distance`, `coverage`,
            `real_low`, `real_high`, `fake_low`, `fake_high`; every 61 with batch norm `mixed_accuracy` (docs/doctor.md).
        skipped: True when no update was made because a value was not finite; on a GPU a tensor like the others.
    """

    step: int
    loss: Tensor | None = None
    real_logits: Tensor | None = None
    fake_logits: Tensor | None = None
    real_accuracy: Tensor | None = None
    fake_accuracy: Tensor | None = None
    regularizers: Mapping[str, Tensor] = field(default_factory=dict)
    grad_norm: Tensor | None = None
    fake_grad_norm: Tensor | None = None
    signals: Mapping[str, Tensor] = field(default_factory=dict)
    skipped: bool | Tensor = False

    @property
    def logit_gap(self) -> Tensor | None:
        """Mean real logit less mean fake logit; None before the start step."""
        if self.real_logits is None or self.fake_logits is None:
            return None
        return self.real_logits - self.fake_logits

    def as_dict(self) -> dict[str, float]:
        """Numbers for a tracker; what was not computed in this step is left out. Reads the tensors (synchronizes)."""
        names = ("loss", "real_logits", "fake_logits", "real_accuracy", "fake_accuracy", "grad_norm", "fake_grad_norm")
        values = {name: float(value) for name in names if (value := getattr(self, name)) is not None}
        values.update({f"regularizers/{name}": float(term) for name, term in self.regularizers.items()})
        signals = {f"signals/{name}": float(signal) for name, signal in self.signals.items()}
        values.update({name: value for name, value in signals.items() if not math.isnan(value)})  # no pair of a class
        return {"step": float(self.step), "skipped": float(self.skipped), **values}
