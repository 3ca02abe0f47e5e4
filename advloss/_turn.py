"""One turn of the discriminator: its loss on a batch, and what there is to say about it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from advloss._condition import Condition
from advloss._judge import Judge, differentiable_twice
from advloss._logits import Logits, at_least_float32, detach, logit_mean
from advloss._loss import Loss
from advloss._report import Report


@dataclass(frozen=True)
class Turn:
    """What the discriminator made of one batch.

    Attributes:
        real, fake: the samples, detached.
        loss: a scalar with a graph to the parameters; `terms` are in it.
        real_logits, fake_logits: half-precision ones as float32.
        terms: the regularizers' terms that were due, each times its `every`.
        buffers: scratch copies of all buffers as the turn left them, by their name in the adversary.
        second_order: whether a term differentiates a gradient.
        signals: what the samples show, where it was measured.
    """

    real: Tensor
    fake: Tensor
    loss: Tensor
    real_logits: Logits
    fake_logits: Logits
    terms: dict[str, Tensor]
    buffers: dict[str, Tensor]
    second_order: bool
    signals: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Due:
    """The regularizers of a step, and how the discriminator has to run for them."""

    regularizers: Mapping[str, Any]

    @functools.cached_property
    def leaves(self) -> frozenset[str]:
        """What is differentiated by: some of real, fake, real_features, fake_features."""
        return frozenset[str]().union(*(getattr(r, "differentiates", ()) for r in self.regularizers.values()))

    @functools.cached_property
    def second_order(self) -> bool:
        """Whether a term differentiates a gradient."""
        return any(getattr(regularizer, "second_order", None) for regularizer in self.regularizers.values())

    def differentiable(self) -> AbstractContextManager[None]:
        """Inside, a forward can be differentiated as often as they need."""
        return differentiable_twice() if self.second_order else nullcontext()


def take_turn(
    judge: Judge,
    loss: Any,
    due: Due,
    real: Tensor,
    fake: Tensor,
    condition: Condition | None,
    fake_condition: Condition | None,
) -> Turn:
    """One forward a side; the regularizers share it where they look at the same samples."""
    real_logits = at_least_float32(judge(real, condition))
    fake_logits = at_least_float32(judge(fake, condition if fake_condition is None else fake_condition))
    total = loss.discriminator(real_logits, fake_logits)
    terms, scratch = {}, {}
    for name, regularizer in due.regularizers.items():
        term, buffers = _term(regularizer, judge, real, fake, condition, fake_condition)
        terms[name] = term * getattr(regularizer, "every", 1)
        scratch.update({f"regularizers.{name}.{key}": buffer for key, buffer in buffers.items()})
    total = sum(terms.values(), start=total)
    scratch.update({f"discriminator.{key}": buffer for key, buffer in judge.buffers.items()})
    return Turn(real.detach(), fake.detach(), total, real_logits, fake_logits, terms, scratch, due.second_order)


def cut(term: Tensor) -> bool:
    """Whether a gradient inside `term` was made by a backward that cannot be differentiated (`once_differentiable`).

    `torch.autograd.grad` by parameters leaves out what lies behind such a node, in silence.
    """
    found, left = set(), [term.grad_fn]
    while left:
        node = left.pop()
        if node is None or node in found:
            continue
        if node.name() == "torch::autograd::Error":
            return True
        found.add(node)
        left.extend(following for following, _ in node.next_functions)
    return False


@torch.no_grad()
def report_of(
    turn: Turn,
    loss: Any,
    step: int,
    grad_norm: Tensor | None = None,
    *,
    skipped: bool | Tensor = False,
    fake_grad_norm: Tensor | None = None,
) -> Report:
    """The report of a turn."""
    accuracy = getattr(loss, "accuracy", None) or functools.partial(Loss.accuracy, loss)
    pairs = [accuracy(real, fake) for real, fake in zip(detach(turn.real_logits), detach(turn.fake_logits))]
    real_shares, fake_shares = zip(*pairs)
    return Report(
        step=step,
        loss=turn.loss.detach(),
        real_logits=logit_mean(turn.real_logits),
        fake_logits=logit_mean(turn.fake_logits),
        real_accuracy=torch.stack(real_shares).mean(),
        fake_accuracy=torch.stack(fake_shares).mean(),
        regularizers={name: term.detach() for name, term in turn.terms.items()},
        grad_norm=grad_norm,
        fake_grad_norm=fake_grad_norm,
        signals=turn.signals,
        skipped=skipped,
    )


def _term(
    regularizer: Any,
    judge: Judge,
    real: Tensor,
    fake: Tensor,
    condition: Condition | None,
    fake_condition: Condition | None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """A regularizer's term, and its buffers as it left scratch copies of them."""
    args: tuple[Any, ...] = (judge, real, fake, condition)
    if fake_condition is not None and fake_condition is not condition:
        args += (fake_condition,)
    scratch = {n: b.clone() for n, b in regularizer.named_buffers()} if isinstance(regularizer, nn.Module) else {}
    return (functional_call(regularizer, scratch, args) if scratch else regularizer(*args)), scratch
