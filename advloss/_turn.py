"""One turn of the discriminator: its loss on a batch, and what there is to say about it."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from advloss._condition import Condition
from advloss._judge import Judge
from advloss._logits import Logits, as_scales, detach, logit_mean
from advloss._loss import Loss
from advloss._report import Report


@dataclass(frozen=True)
class Turn:
    """What the discriminator made of one batch.

    Attributes:
        loss: a scalar with a graph to the parameters; `terms` are in it.
        terms: the regularizers' terms that were due, each times its `every`.
        buffers: scratch copies of all buffers as the turn left them, by their name in the adversary.
    """

    loss: Tensor
    real_logits: Logits
    fake_logits: Logits
    terms: dict[str, Tensor]
    buffers: dict[str, Tensor]


def take_turn(
    judge: Judge,
    loss: Any,
    regularizers: Mapping[str, Any],
    real: Tensor,
    fake: Tensor,
    condition: Condition | None,
    fake_condition: Condition | None,
) -> Turn:
    """One forward a side; the regularizers share it where they look at the same samples."""
    real_logits = judge(real, condition)
    fake_logits = judge(fake, condition if fake_condition is None else fake_condition)
    total = loss.discriminator(real_logits, fake_logits)
    terms, scratch = {}, {}
    for name, regularizer in regularizers.items():
        term, buffers = _term(regularizer, judge, real, fake, condition, fake_condition)
        terms[name] = term * getattr(regularizer, "every", 1)
        scratch.update({f"regularizers.{name}.{key}": buffer for key, buffer in buffers.items()})
    total = sum(terms.values(), start=total)
    scratch.update({f"discriminator.{key}": buffer for key, buffer in judge.buffers.items()})
    return Turn(total, real_logits, fake_logits, terms, scratch)


@torch.no_grad()
def report_of(turn: Turn, loss: Any, step: int, grad_norm: Tensor | None = None, *, skipped: bool = False) -> Report:
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
        skipped=skipped,
    )


def not_finite(turn: Turn) -> str:
    """Names of the values of a turn that are not finite, for an error."""
    values = {"real logits": as_scales(turn.real_logits), "fake logits": as_scales(turn.fake_logits)}
    values.update({f"regularizer {name!r}": (term,) for name, term in turn.terms.items()})
    values["loss"] = (turn.loss,)
    bad = [name for name, tensors in values.items() if not all(bool(t.isfinite().all()) for t in tensors)]
    return ", ".join(bad or ["gradient"])


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
