"""The watch over the steps of the player that the script owns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from advloss._guard import Guard
from advloss._runtime import Accelerated, Runtime
from advloss._stepper import Stepper
from advloss.errors import OptionError


class StepGuard:
    """Takes a model's steps, and skips those whose gradient is not finite, as an adversary does with its own.

    In place of ``optimizer.step()``, also where it is used with Accelerate's accumulation and float16::

        guard = advloss.StepGuard(model, optimizer, accelerator=accelerator)
        ...
        accelerator.backward(loss)
        guard.step(loss=loss)
        optimizer.zero_grad()

    A skipped step leaves parameters and moments alone, and sets the model's buffers back to what they were after the
    last good one. All ranks decide alike. On a GPU with a fused optimizer the device decides, and nothing is read.

    Args:
        model: whose gradients are looked at.
        optimizer: of its parameters; a torch optimizer, or Accelerate's around one.
        accelerator: an `accelerate.Accelerator`, where the script uses one.
        max_skipped: so many steps may be skipped in a row.

    Raises:
        OptionError: `max_skipped` is below 0, or nothing of `model` trains.
    """

    def __init__(self, model: nn.Module, optimizer: Any, *, accelerator: Any = None, max_skipped: int = 10) -> None:
        if max_skipped < 0:
            raise OptionError(f"max_skipped={max_skipped!r}: give a whole number, 0 or more")
        self._model = model
        if not any(p.requires_grad for p in model.parameters()):
            raise OptionError(f"no parameter of {type(model).__name__} requires gradients; give the model that trains")
        self._scaled = getattr(optimizer, "scaler", None) is not None
        self._runtime = Runtime() if accelerator is None else Accelerated(accelerator)
        self._stepper = Stepper(optimizer)
        self._guard = Guard(max_skipped, f"{type(model).__name__}'s")
        self._buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}

    @property
    def skipped_in_a_row(self) -> int:
        """Steps that were skipped since the last good one, as far as is known: on a GPU, up to the step before."""
        return self._guard.in_a_row

    @torch.no_grad()
    def step(self, **values: Tensor) -> None:
        """Take the optimizer's step, or skip it. Call it in every process, after the backward.

        Args:
            values: what the gradients come from (``loss=loss``), for the error.

        Raises:
            NonFiniteError: more than `max_skipped` steps in a row had to be skipped.
        """
        if not self._runtime.sync:
            return
        causes = {f"parameter {n}": (p,) for n, p in self._model.named_parameters()}
        gradients = {f"gradient of {n}": (p.grad,) for n, p in self._model.named_parameters() if p.grad is not None}
        given = {name: (value,) for name, value in values.items()}
        self._guard.settle()  # the step before this one, where the device decided on it
        good = self._take([gradient for (gradient,) in gradients.values()])
        self._restore_buffers(good)
        self._guard.watch(good)
        if isinstance(good, bool):
            self._guard.settle()
        self._guard.check(causes, given, gradients)

    def _take(self, gradients: Sequence[Tensor]) -> bool | Tensor:
        if self._scaled:
            # Accelerate's scaler skips by itself, and lowers its scale; its `step_was_skipped` misses fused optimizers
            good = self._stepper.decide(get_total_norm(gradients, math.inf).isfinite())
            self._stepper.step(True)
            return good
        finite = get_total_norm(gradients).isfinite()  # with their squares, which moments are made of
        good = self._stepper.decide(self._runtime.mean(torch.where(finite, 0.0, torch.nan)).isfinite())
        self._stepper.step(good)
        return good

    def _restore_buffers(self, good: bool | Tensor) -> None:
        for name, buffer in self._model.named_buffers():
            kept = self._buffers.get(name)
            if kept is None or kept.shape != buffer.shape:  # a cache that the forward has made
                self._buffers[name] = buffer.clone()
            elif good is True:
                kept.copy_(buffer)
            else:
                buffer.copy_(kept if good is False else torch.where(good, buffer, kept))
                kept.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        """What the next step depends on. In an `advloss.TrainingState` it comes after the model."""
        self._guard.settle()
        return {"skipped": self._guard.in_a_row, "buffers": dict(self._buffers)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._guard.forget()
        self._guard.in_a_row = state["skipped"]
        devices = {name: buffer.device for name, buffer in self._model.named_buffers()}
        self._buffers = {n: b.to(devices[n], copy=True) for n, b in state["buffers"].items() if n in devices}
        self._stepper.forget()
