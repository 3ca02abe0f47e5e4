"""Feature matching (pix2pixHD): what is made should look like originals to the discriminator's inner layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from advloss._adversary import Adversary
from advloss._condition import Condition
from advloss.errors import CombinationError


@final
class FeatureMatching:
    """The adversary's generator loss, and the mean over its inner layers of ``|D_i(real) - D_i(fake)|`` (arXiv:1711.11585).

    Layers are the outputs of convolutions and dense layers but the last. A paired loss has looked at both sides anyway;
    with another one there is one more forward on originals, without gradients.

    Args:
        adversary: without augmentations, which would show its layers different images.

    Raises:
        CombinationError: it augments, or its discriminator has no inner layer.
    """

    def __init__(self, adversary: Adversary) -> None:
        if adversary.augmentations:
            raise CombinationError(
                f"feature matching compares two images of one scene, and {', '.join(adversary.augmentations)} would "
                "change each on its own: leave the augmentations out, or feature_matching=0"
            )
        layers = [m for m in adversary.discriminator.modules() if isinstance(m, (_ConvNd, nn.Linear))]
        if len(layers) < 2:
            raise CombinationError(
                f"a {type(adversary.discriminator).__name__} has no inner convolution or dense layer to match; use "
                "feature_matching=0"
            )
        self._adversary, self._layers = adversary, layers[:-1]

    def __call__(self, fake: Tensor, real: Tensor, condition: Condition | None = None) -> tuple[Tensor, Tensor | None]:
        """The weighted generator loss, and the matching term; None before the start step."""
        with self._outputs() as seen:
            loss = self._adversary.generator_loss(fake, real, condition)
        if not seen:
            return loss, None
        fakes, reals = seen, seen[len(seen) // 2 :]
        if getattr(self._adversary.loss, "paired", False):
            fakes = seen[: len(seen) // 2]
        else:
            with torch.no_grad(), self._outputs() as reals:
                self._adversary.generator_loss(real, None, condition)
        distances = [(f - r.detach()).abs().mean() for f, r in zip(fakes, reals, strict=True)]
        return loss, torch.stack(distances).mean()

    @contextmanager
    def _outputs(self) -> Iterator[list[Tensor]]:
        """Inside, what the layers return is appended."""
        seen: list[Tensor] = []

        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            seen.append(output)

        with ExitStack() as stack:
            for layer in self._layers:
                stack.callback(layer.register_forward_hook(keep).remove)
            yield seen
