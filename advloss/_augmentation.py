"""Differentiable transforms that the discriminator sees on real and fake samples alike."""

from __future__ import annotations

from abc import ABC, abstractmethod

from torch import Tensor, nn

from advloss._logits import Logits


class Augmentation(nn.Module, ABC):
    """Random numbers come from torch's global generator: an adversary gives each call a stream of its own."""

    @abstractmethod
    def forward(self, samples: Tensor) -> Tensor:
        """Transformed samples of the same shape, dtype and device; `samples` itself stays as it is."""

    def after_step(self, discriminator: nn.Module, real_logits: Logits, fake_logits: Logits) -> None:
        """Called after each step that the optimizer took, with detached logits. Does nothing here."""
