"""The watch over the steps of the player that the script owns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import OptState
from torch.nn.utils import get_total_norm

from advloss._guard import Guard
from advloss._interrupt import uninterrupted
from advloss._runtime import Accelerated, Runtime
from advloss._stepper import Stepper
from advloss._steps import check_steps
from advloss.errors import OptionError


class StepGuard:
    """Takes a model's steps, and skips those whose gradient is not finite, as an adversary does with its own.

    In place of ``optimizer.step()``, also where it is used with Accelerate's accumulation and float16::

        guard = advloss.StepGuard(model, optimizer, accelerator=accelerator)
        ...
        accelerator.backward(loss)
        guard.step(loss=loss)
        optimizer.zero_grad()

    Looked at are the gradients of all that the optimizer steps, the model's buffers and the losses given. A skipped step
    leaves parameters and moments alone; buffers that became NaN or infinite are put back to what they were after the last
    good step. All ranks decide alike. On a GPU with a fused optimizer the device decides, and nothing is read.

    Args:
        model: what the optimizer trains.
        optimizer: a torch optimizer, or Accelerate's around one.
        accelerator: an `accelerate.Accelerator`, where the script uses one.
        max_skipped: so many steps may be skipped in a row.

    Raises:
        OptionError: `max_skipped` is below 0; the optimizer trains nothing of `model`, needs arguments in its step, or was
            not prepared by an accelerator that scales gradients.
    """

    def __init__(self, model: nn.Module, optimizer: Any, *, accelerator: Any = None, max_skipped: int = 10) -> None:
        if max_skipped < 0:
            raise OptionError(f"max_skipped={max_skipped!r}: give a whole number, 0 or more")
        check_steps("optimizer", getattr(optimizer, "optimizer", optimizer), "param_groups")
        self._model = model
        self._optimizer = optimizer
        self._names = _names(model, optimizer)
        self._scaler: Any = getattr(optimizer, "scaler", None)  # Accelerate's, which it gives to what it prepares
        if self._scaler is None and getattr(accelerator, "scaler", None) is not None:
            raise OptionError(
                "this accelerator scales gradients, and the optimizer does not know of it: give StepGuard what accelerator.prepare "
                "returned"
            )
        self._runtime = Runtime() if accelerator is None else Accelerated(accelerator)
        self._stepper = Stepper(optimizer)
        self._guard = Guard(max_skipped, f"{type(model).__name__}'s")
        self._watched = {n for n, b in model.named_buffers() if b.is_floating_point() and bool(b.isfinite().all())}
        self._kept: dict[str, Tensor] = {}

    @property
    def skipped_in_a_row(self) -> int:
        """Steps that were skipped since the last good one, as far as is known: on a GPU, up to the step before."""
        return self._guard.in_a_row

    @torch.no_grad()
    def step(self, **values: Tensor | float) -> None:
        """Take the optimizer's step, or skip it. Call it in every process, after the backward.

        Args:
            values: what the gradients come from, for the error; scalars (``loss=loss``) have to be finite as well.

        Raises:
            NonFiniteError: more than `max_skipped` steps in a row had to be skipped.
        """
        if not self._runtime.sync:
            return
        given = {name: (torch.as_tensor(value),) for name, value in values.items()}
        parameters = {f"parameter {name}": (p,) for p, name in self._names.items()}
        gradients = {f"gradient of {name}": (p.grad,) for p, name in self._names.items() if p.grad is not None}
        buffers = {f"buffer {name}": (b,) for name, b in self._model.named_buffers() if name in self._watched}
        self._guard.settle()  # the step before this one, where the device decided on it
        if self._scaler is not None:
            self._unscale()
        norm = get_total_norm([gradient for (gradient,) in gradients.values()])  # of squares, which moments are made of
        norm = getattr(norm, "full_tensor", lambda: norm)()  # of gradients that FSDP2 has spread over processes
        scalars = [value for (value,) in given.values() if value.ndim == 0]
        finite = self._finite([norm, *scalars, *(b for (b,) in buffers.values())])
        finite = self._runtime.mean(torch.where(finite, 0.0, torch.nan)).isfinite()
        with uninterrupted():
            good = self._stepper.decide(finite)
            self._take(good)
            self._guard.watch(good)
            if isinstance(good, bool):
                self._guard.settle()
            try:
                self._guard.check(parameters, given, gradients, buffers)
            finally:
                self._keep_or_restore(good)

    def _finite(self, tensors: Sequence[Tensor]) -> Tensor:
        device = next(iter(self._names)).device
        return torch.stack([tensor.isfinite().all().to(device) for tensor in tensors]).all()

    def _unscale(self) -> None:
        """Unless the script did, to clip."""
        inner = self._optimizer.optimizer
        if self._scaler._per_optimizer_states[id(inner)]["stage"] is OptState.READY:
            self._scaler.unscale_(inner)

    def _take(self, good: bool | Tensor) -> None:
        if self._scaler is None:
            self._stepper.step(good)
            return
        # a scaler skips by itself, and lowers its scale, where it found infinity: it is told of what it did not look at
        for found in self._scaler._found_inf_per_device(self._optimizer.optimizer).values():
            found.copy_(torch.maximum(found, (~torch.as_tensor(good, device=found.device)).to(found.dtype)))
        self._stepper.step(True)

    def _keep_or_restore(self, good: bool | Tensor) -> None:
        for name, buffer in self._model.named_buffers():
            if name not in self._watched:
                continue
            kept = self._kept.get(name)
            if kept is None or kept.shape != buffer.shape:
                if good is not False:
                    self._kept[name] = buffer.clone()
                continue
            buffer.copy_(torch.where(buffer.isfinite().all(), buffer, kept))
            if good is not False:
                kept.copy_(buffer)

    def state_dict(self) -> dict[str, Any]:
        """What the next step depends on. In an `advloss.TrainingState` it comes after the model."""
        self._guard.settle()
        return {"skipped": self._guard.in_a_row, "buffers": dict(self._kept)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self._guard.forget()
        self._guard.in_a_row = state["skipped"]
        devices = {name: buffer.device for name, buffer in self._model.named_buffers()}
        self._kept = {n: b.to(devices[n], copy=True) for n, b in state["buffers"].items() if n in devices}
        self._stepper.forget()


def _names(model: nn.Module, optimizer: Any) -> dict[nn.Parameter, str]:
    """Names of what the optimizer steps; that of other models by its place."""
    of_model = {p: name for name, p in model.named_parameters()}
    groups = enumerate(group["params"] for group in optimizer.param_groups)
    names = {
        p: of_model.get(p, f"{place} of the optimizer's group {g}") for g, ps in groups for place, p in enumerate(ps)
    }
    if not names.keys() & of_model.keys():
        raise OptionError(
            f"the optimizer trains no parameter of this {type(model).__name__}; give the model and the optimizer that trains it"
        )
    return names
