"""The discriminator's update: gradients and buffers gathered over micro-batches and ranks, then one guarded step."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from advloss._runtime import Runtime
from advloss._state import check_moments
from advloss._stepper import Stepper
from advloss.errors import CombinationError, StateError


@dataclass(frozen=True)
class Gathered:
    """What the micro-batches of one step have left so far.

    Attributes:
        gradients: their sum, each micro-batch's share divided by their number already.
        buffers: the sum of those that are floats.
        logits: each scale's, one micro-batch after the other; empty where nobody asks for them.
        count: of micro-batches.
        finite: whether all losses were.
    """

    gradients: Sequence[Tensor] = ()
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    logits: Sequence[Tensor] = ()
    count: int = 0
    finite: Tensor | None = None

    def __add__(self, other: Gathered) -> Gathered:
        if self.count == 0:
            return other
        return Gathered(
            [total + g for total, g in zip(self.gradients, other.gradients)],
            {n: self.buffers[n] + b if b.is_floating_point() else b for n, b in other.buffers.items()},
            [torch.cat(both) for both in zip(self.logits, other.logits)],
            self.count + other.count,
            other.finite if self.finite is None or other.finite is None else self.finite & other.finite,
        )

    def mean(self, runtime: Runtime) -> Gathered:
        """Over micro-batches and ranks; logits of all of them. A value that is not finite on one rank is so on all."""
        assert self.finite is not None
        buffers = {n: b / self.count if b.is_floating_point() else b for n, b in self.buffers.items()}
        if runtime.world == 1:
            return replace(self, buffers=buffers)
        names = [name for name, buffer in buffers.items() if buffer.is_floating_point()]
        flag = torch.where(self.finite, 0.0, torch.nan).to(self.gradients[0].dtype)
        means = _mean_over_ranks(runtime, [*self.gradients, *(buffers[name] for name in names), flag])
        count = len(self.gradients)
        return Gathered(
            means[:count],
            {**buffers, **dict(zip(names, means[count:-1]))},
            [runtime.gather(scale) for scale in self.logits],
            self.count,
            means[-1].isfinite(),
        )


@dataclass(frozen=True)
class Applied:
    """What became of a step: the gradient's norm, whether the step was made, and the means it was made of."""

    norm: Tensor
    good: bool | Tensor
    gathered: Gathered


class Update:
    """Gathers micro-batches until the step is taken.

    A step's gradient is the mean over its micro-batches and ranks, and so are the buffers that its forwards left
    behind (spectral norm's vectors, batch norm's statistics, moving averages): each micro-batch starts from the same
    buffers, so that k small batches move them as one large batch does. Nothing is committed when the loss, a
    gradient or a buffer is not finite, and since the means are the same on every rank, so is that decision.

    Args:
        parameters: what trains, by name.
        optimizer: theirs.
        max_grad_norm: clip to this 2-norm.
        buffers: by the names that `add` uses; those that hold NaN or infinity from the start (masks) may go on so.

    Attributes:
        gathered: what `add` was given since the last step.
        stepper: who reads whether a step is good, the host or the device.
    """

    def __init__(
        self,
        parameters: Mapping[str, Tensor],
        optimizer: Optimizer,
        max_grad_norm: float | None,
        buffers: Mapping[str, Tensor],
    ) -> None:
        self.names = list(parameters)
        self.parameters = list(parameters.values())
        self.optimizer = optimizer
        self.stepper = Stepper(optimizer)
        self.max_grad_norm = max_grad_norm
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        self._scaler_state: dict[str, Any] = {}
        self.gathered = Gathered()
        floats = {n: b for n, b in buffers.items() if b.is_floating_point() and not b.is_meta}  # those have no values
        self._guarded = {n for n, b in floats.items() if bool(b.isfinite().all())}
        self._buffer_shapes = {name: buffer.shape for name, buffer in buffers.items()}

    def add(
        self, loss: Tensor, buffers: Mapping[str, Tensor], micro_batches: int, logits: Sequence[Tensor] = ()
    ) -> None:
        """Differentiate one micro-batch's loss and gather the result; parameters' own `grad` is left alone.

        Raises:
            CombinationError: there were that many already.
        """
        if self.gathered.count >= micro_batches:
            raise CombinationError(
                f"more discriminator steps than micro-batches ({micro_batches}) since the last step of the optimizer: inside "
                "accelerate's accumulate() give one discriminator_step a micro-batch; for several steps of the discriminator "
                "a step of the model, leave accumulation off and use larger batches"
            )
        scaled = self.scaler.scale(loss / micro_batches if micro_batches > 1 else loss)
        gradients = torch.autograd.grad(scaled, self.parameters, materialize_grads=True)
        self.gathered += Gathered(gradients, buffers, logits, 1, loss.detach().isfinite())

    @contextmanager
    def restored_on_error(self) -> Iterator[None]:
        """What was gathered before stays gathered where something is raised inside."""
        before = self.gathered
        try:
            yield
        except BaseException:
            self.gathered = before
            raise

    def results(self, gathered: Gathered | None = None) -> dict[str, Sequence[Tensor]]:
        """What was gathered (here, unless given), by a name for each tensor."""
        gathered = gathered or self.gathered
        named = {f"gradient of {name}": (g,) for name, g in zip(self.names, gathered.gradients)}
        return {**named, **{f"buffer {n}": (b,) for n, b in gathered.buffers.items() if n in self._guarded}}

    @torch.no_grad()
    def apply(self, gathered: Gathered, module: nn.Module) -> Applied:
        """Step the optimizer and commit `module`'s buffers, unless a value is not finite.

        Args:
            gathered: the mean over ranks of what was gathered, which is used up.
        """
        gradients = [_in_layout_of(p, g) for p, g in zip(self.parameters, gathered.gradients)]
        own = [parameter.grad for parameter in self.parameters]
        try:
            for parameter, gradient in zip(self.parameters, gradients):
                parameter.grad = gradient
            self.scaler.unscale_(self.optimizer)
            norm = get_total_norm(gradients)
            good = self.stepper.decide(self._all_finite(gathered, norm))
            if good is not False:
                if self.max_grad_norm is not None:
                    clip_grads_with_norm_(self.parameters, self.max_grad_norm, norm)
                self.stepper.step(good)
                commit(module, gathered.buffers, good)
            if self.scaler.is_enabled():
                self.scaler.update()
        except BaseException:
            if self.scaler.is_enabled():  # with its own scale: it only forgets that it has unscaled these gradients
                self.scaler.update(self.scaler.get_scale())
            raise
        finally:
            for parameter, gradient_before in zip(self.parameters, own):
                parameter.grad = gradient_before
        self.gathered = Gathered()
        return Applied(norm, good, gathered)

    def _all_finite(self, gathered: Gathered, norm: Tensor) -> Tensor:
        assert gathered.finite is not None
        return self.finite(norm, gathered.buffers) & gathered.finite

    def finite(self, value: Tensor, buffers: Mapping[str, Tensor]) -> Tensor:
        """Whether `value`, a scalar, and `buffers` are."""
        guarded = [b for name, b in buffers.items() if name in self._guarded and b.numel()]
        finite = value.detach().isfinite()
        return finite & get_total_norm(guarded, math.inf).isfinite() if guarded else finite

    def use_scaler(self, scaler: torch.amp.GradScaler) -> None:
        """Scale with this one from now on; what was loaded of an earlier one goes on in it."""
        if scaler.is_enabled() and self._scaler_state:
            scaler.load_state_dict(self._scaler_state)
        self.scaler = scaler

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, an unfinished accumulation included."""
        gathered = self.gathered
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict() if self.scaler.is_enabled() else self._scaler_state,
            "gradients": dict(enumerate(gathered.gradients)),
            "buffers": dict(gathered.buffers),
            "logits": dict(enumerate(gathered.logits)),
            "count": gathered.count,
            "finite": gathered.finite if gathered.finite is None else bool(gathered.finite),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        check_moments(self.optimizer, state["optimizer"])
        self.optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # it would go on with the caller's tensors
        for parameter, moments in self.optimizer.state.items():
            moments.update({n: _in_layout_of(parameter, m) for n, m in moments.items() if isinstance(m, Tensor)})
        self.stepper.forget()
        self._scaler_state = state["scaler"]
        self.use_scaler(self.scaler)
        device = self.parameters[0].device
        shapes = [p.shape for p in self.parameters] if state["count"] else []
        strange = {n for n, b in state["buffers"].items() if b.shape != self._buffer_shapes.get(n)}
        if [g.shape for g in state["gradients"].values()] != shapes or strange:
            raise StateError("an unfinished accumulation of other parameters or buffers; build the adversary as it was")
        self.gathered = Gathered(
            [g.to(device) for g in state["gradients"].values()],
            {name: b.to(device) for name, b in state["buffers"].items()},
            [scale.to(device) for scale in state["logits"].values()],
            state["count"],
            None if state["finite"] is None else torch.tensor(state["finite"], device=device),
        )


@torch.no_grad()
def commit(module: nn.Module, buffers: Mapping[str, Tensor], good: bool | Tensor = True) -> None:
    """Write scratch buffers into `module`'s own, where the step was `good`."""
    own = dict(module.named_buffers())
    for name, value in buffers.items():
        own[name].copy_(torch.where(good, value, own[name]) if isinstance(good, Tensor) else value)


def _mean_over_ranks(runtime: Runtime, tensors: list[Tensor]) -> list[Tensor]:
    """One reduction a dtype, in the order that they are met: a set's order differs from process to process."""
    means = list(tensors)
    for dtype in dict.fromkeys(t.dtype for t in tensors):
        places = [i for i, t in enumerate(tensors) if t.dtype == dtype]
        flat = runtime.mean(torch.cat([tensors[i].reshape(-1) for i in places]))
        for i, part in zip(places, flat.split([tensors[i].numel() for i in places])):
            means[i] = part.view_as(tensors[i])
    return means


def _in_layout_of(parameter: Tensor, tensor: Tensor) -> Tensor:
    """`tensor` with the strides of `parameter` (where it has its shape): a fused optimizer looks at memory alone."""
    if tensor.shape != parameter.shape or tensor.stride() == parameter.stride():
        return tensor
    return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
