"""Components that act after each step of the optimizer: weight clipping, an augmentation that adapts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from advloss._augmentation import Augmentation
from advloss._regularizer import Regularizer


class Followers:
    """Those of `components` whose `after_step` does something.

    Args:
        components: regularizers and augmentations.
        discriminator: that they are called with.
    """

    def __init__(self, components: Iterable[Any], discriminator: nn.Module) -> None:
        nothing = (None, Regularizer.after_step, Augmentation.after_step)
        self._members = [c for c in components if getattr(type(c), "after_step", None) not in nothing]
        self._discriminator = discriminator

    def __bool__(self) -> bool:
        return bool(self._members)

    def __str__(self) -> str:
        return ", ".join(type(member).__name__ for member in self._members)

    def after_step(self, good: bool | Tensor, real_logits: Sequence[Tensor], fake_logits: Sequence[Tensor]) -> None:
        """Call them with the logits of all micro-batches and ranks, where the step was `good`."""
        for member in self._members if good is not False else ():
            with _only_if(good, member, self._discriminator):
                member.after_step(self._discriminator, tuple(real_logits), tuple(fake_logits))


@contextmanager
@torch.no_grad()
def _only_if(good: bool | Tensor, *modules: Any) -> Iterator[None]:
    """What happens inside to parameters and buffers of `modules` is taken back unless `good`, without reading it."""
    if isinstance(good, bool):
        yield
        return
    owned = [module for module in modules if isinstance(module, nn.Module)]
    tensors = [t for module in owned for t in (*module.parameters(), *module.buffers())]
    before = [t.clone() for t in tensors]
    yield
    for tensor, old in zip(tensors, before):
        tensor.copy_(torch.where(good, tensor, old))
