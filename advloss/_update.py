"""The discriminator's update: gradients and buffers gathered over micro-batches and ranks, then one guarded step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from advloss._runtime import Runtime
from advloss.errors import StateError


class Update:
    """Gathers micro-batches until the step is taken.

    A step's gradient is the mean over its micro-batches and ranks, and so are the buffers that its forwards left
    behind (spectral norm's vectors, batch norm's statistics, moving averages): each micro-batch starts from the same
    buffers, so that k small batches move them as one large batch does. Nothing is committed when the loss or a
    gradient is not finite, and since the means are the same on every rank, so is that decision.
    """

    def __init__(self, parameters: Sequence[Tensor], optimizer: Optimizer, max_grad_norm: float | None) -> None:
        self.parameters = list(parameters)
        self.optimizer = optimizer
        self.max_grad_norm = max_grad_norm
        self.scaler = torch.amp.GradScaler("cpu", enabled=False)
        self.gradients: list[Tensor] = []
        self.buffers: dict[str, Tensor] = {}
        self.count = 0
        self.finite: Tensor | None = None

    def add(self, loss: Tensor, buffers: Mapping[str, Tensor], micro_batches: int) -> None:
        """Differentiate one micro-batch's loss and gather the result; parameters' own `grad` is left alone."""
        scaled = self.scaler.scale(loss / micro_batches if micro_batches > 1 else loss)
        gradients = torch.autograd.grad(scaled, self.parameters, materialize_grads=True)
        finite = loss.detach().isfinite()
        if self.count == 0:
            self.gradients, self.buffers, self.finite = list(gradients), dict(buffers), finite
        else:
            self.gradients = [total + g for total, g in zip(self.gradients, gradients)]
            self.buffers = {n: self.buffers[n] + b if b.is_floating_point() else b for n, b in buffers.items()}
            self.finite = finite if self.finite is None else self.finite & finite
        self.count += 1

    @torch.no_grad()
    def apply(self, runtime: Runtime, module: nn.Module) -> tuple[Tensor, bool]:
        """Step the optimizer and commit `module`'s buffers. Returns the gradient's norm, and whether it was done."""
        assert self.finite is not None
        buffers = {
            n: b / self.count if self.count > 1 and b.is_floating_point() else b for n, b in self.buffers.items()
        }
        gradients, buffers, finite = _mean_over_ranks(runtime, self.gradients, buffers, self.finite)
        self.clear()
        own = [parameter.grad for parameter in self.parameters]
        try:
            for parameter, gradient in zip(self.parameters, gradients):
                parameter.grad = gradient
            self.scaler.unscale_(self.optimizer)
            norm = get_total_norm(gradients)
            good = bool(finite & norm.isfinite())
            if good:
                if self.max_grad_norm is not None:
                    clip_grads_with_norm_(self.parameters, self.max_grad_norm, norm)
                self.scaler.step(self.optimizer)
                commit(module, buffers)
            if self.scaler.is_enabled():
                self.scaler.update()
        finally:
            for parameter, gradient_before in zip(self.parameters, own):
                parameter.grad = gradient_before
        return norm, good

    def clear(self) -> None:
        """Forget what was gathered."""
        self.gradients, self.buffers, self.count, self.finite = [], {}, 0, None

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next step depends on, an unfinished accumulation included."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
            "gradients": dict(enumerate(self.gradients)),
            "buffers": dict(self.buffers),
            "count": self.count,
            "finite": self.finite if self.finite is None else bool(self.finite),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scaler.is_enabled() and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        device = self.parameters[0].device
        shapes = [p.shape for p in self.parameters] if state["count"] else []
        if [g.shape for g in state["gradients"].values()] != shapes:
            raise StateError("an unfinished accumulation of other parameters; build the adversary as it was")
        self.gradients = [g.to(device) for g in state["gradients"].values()]
        self.buffers = {name: b.to(device) for name, b in state["buffers"].items()}
        self.count = state["count"]
        self.finite = None if state["finite"] is None else torch.tensor(state["finite"], device=device)


@torch.no_grad()
def commit(module: nn.Module, buffers: Mapping[str, Tensor]) -> None:
    """Write scratch buffers into `module`'s own."""
    own = dict(module.named_buffers())
    for name, value in buffers.items():
        own[name].copy_(value)


def _mean_over_ranks(
    runtime: Runtime, gradients: list[Tensor], buffers: dict[str, Tensor], finite: Tensor
) -> tuple[list[Tensor], dict[str, Tensor], Tensor]:
    """One reduction a dtype. A value that is not finite on one rank is not finite on all."""
    if runtime.world == 1:
        return gradients, buffers, finite
    names = [name for name, buffer in buffers.items() if buffer.is_floating_point()]
    flag = torch.where(finite, 0.0, torch.nan).to(gradients[0].dtype)
    tensors = [*gradients, *(buffers[name] for name in names), flag]
    means: list[Tensor] = list(tensors)
    for dtype in {t.dtype for t in tensors}:
        places = [i for i, t in enumerate(tensors) if t.dtype == dtype]
        flat = runtime.mean(torch.cat([tensors[i].reshape(-1) for i in places]))
        for i, part in zip(places, flat.split([tensors[i].numel() for i in places])):
            means[i] = part.view_as(tensors[i])
    count = len(gradients)
    return means[:count], {**buffers, **dict(zip(names, means[count:-1]))}, means[-1].isfinite()
