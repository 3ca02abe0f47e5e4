"""Feature matching (pix2pixHD): reconstructions should look like images to the discriminator's inner layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from advloss import Adversary, CombinationError


@final
class FeatureMatching:
    """The adversary's generator loss, and the mean over its inner layers of ``|D_i(real) - D_i(fake)|`` (arXiv:1711.11585).

    Both come from one forward on fakes. Layers are the outputs of convolutions and dense layers but the last.

    Args:
        adversary: without augmentations, which would show its layers different images.

    Raises:
        CombinationError: it augments, or its discriminator has no inner layer.
    """

    def __init__(self, adversary: Adversary) -> None:
        if adversary.augmentations:
            names = ", ".join(adversary.augmentations)
            raise CombinationError(
                f"feature matching compares an image with its reconstruction, and {names} would change each on its "
                "own: leave the augmentations out, or feature_matching=0"
            )
        layers = [m for m in adversary.discriminator.modules() if isinstance(m, (_ConvNd, nn.Linear))]
        if len(layers) < 2:
            raise CombinationError(
                f"a {type(adversary.discriminator).__name__} has no inner convolution or dense layer to match; use "
                "feature_matching=0"
            )
        self._adversary, self._layers = adversary, layers[:-1]

    def __call__(self, fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
        """The weighted generator loss, and the matching term, both scalars."""
        with self._features() as seen:
            loss = self._adversary.generator_loss(fake, real)
        if not loss.requires_grad:
            return loss, loss
        if getattr(self._adversary.loss, "paired", False):
            count = len(seen) // 2  # it has looked at both
            fakes, reals = seen[:count], seen[count:]
        else:
            with torch.no_grad(), self._features() as reals:
                self._adversary.generator_loss(real)
            fakes = seen
        distances = [(f - r.detach()).abs().mean() for f, r in zip(fakes, reals, strict=True)]
        return loss, torch.stack(distances).mean()

    @contextmanager
    def _features(self) -> Iterator[list[Tensor]]:
        """Inside, what the layers return is appended."""
        seen: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            seen.append(output)

        with ExitStack() as stack:
            for layer in self._layers:
                stack.callback(layer.register_forward_hook(keep).remove)
            yield seen
