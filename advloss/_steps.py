"""What an adversary steps, an optimizer and a scheduler, checked when they are built."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from advloss.errors import OptionError


def check_steps(name: str, made: Any, *attributes: str) -> None:
    """Raise OptionError unless `made` has `attributes` and a `step` that is called without arguments."""
    kind = type(made).__name__
    if missing := [a for a in ("step", *attributes) if not hasattr(made, a)]:
        raise OptionError(f"{name}= returned a {kind}, which has no {' and no '.join(missing)}; return a torch {name}")
    # the class's own, without self: schedules and accelerators put wrappers in its place
    if needed := _required(type(made).step)[1:] if hasattr(type(made), "step") else _required(made.step):
        raise OptionError(
            f"{name}= returned a {kind}, whose step needs {', '.join(needed)}; an adversary calls step(): give a {name} "
            "that needs nothing there"
        )


def check_parameters(optimizer: Any, parameters: Mapping[str, Tensor]) -> None:
    """Raise OptionError unless `optimizer` has those of the discriminator that train, all of them and no others."""
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    if strange := len(held - {id(parameter) for parameter in parameters.values()}):
        raise OptionError(
            f"optimizer= returned one that trains {strange} tensors that are not the discriminator's; build it from the "
            "parameters that it is called with"
        )
    if missing := [name for name, parameter in parameters.items() if id(parameter) not in held]:
        raise OptionError(
            f"optimizer= returned one without the discriminator's {', '.join(missing[:3])}; build it from all parameters that "
            "it is called with, and freeze by requires_grad_(False) what is not to train"
        )


def check_without_state(loss: Any) -> None:
    """Raise OptionError for a loss with tensors of its own: nobody would save them, or step them."""
    if isinstance(loss, nn.Module) and (held := [n for n, _ in (*loss.named_parameters(), *loss.named_buffers())]):
        raise OptionError(
            f"the loss {type(loss).__name__} holds {', '.join(held[:3])}; a loss is a function of logits: keep moving averages "
            "in a regularizer (its buffers are saved), and weights in the discriminator"
        )


def check_frozen(augmentation: nn.Module) -> None:
    """Raise OptionError for an augmentation with trainable parameters: no optimizer has them."""
    if learns := [n for n, p in augmentation.named_parameters() if p.requires_grad]:
        raise OptionError(
            f"the augmentation {type(augmentation).__name__} would learn {', '.join(learns[:3])}; call requires_grad_(False) on "
            "it, or adapt it in after_step"
        )


def _required(function: Any) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # one that does not say
        return []
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
