"""Networks without memory: of weights and samples there are shapes alone, and what can be asked is whether these fit.

They are torch's fake tensors: of the device ``meta`` underneath, but attention takes its fused kernel, as on a real device. Real
tensors may be given to them. Masks, classes and timesteps are, since some networks read their values (Lumina 2's how many
tokens each prompt has).
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, DynamicOutputShapeException, FakeTensorMode

from advloss import OptionError


@functools.cache
def weightless() -> FakeTensorMode:
    """Inside, all that is made has no memory. There is one, as fake tensors of two cannot meet."""
    return FakeTensorMode(allow_non_fake_inputs=True)


def built(kind: Any, config: Any) -> nn.Module:
    """A network of this configuration, frozen, in evaluation and without memory."""
    with weightless():
        network: nn.Module = kind.from_config(config)
    return network.requires_grad_(False).eval()


def emptied(network: nn.Module) -> nn.Module:
    """`network` itself, its weights taken out of memory for good."""
    with weightless():
        for module in network.modules():
            for name, p in module._parameters.items():
                if p is not None:
                    module._parameters[name] = nn.Parameter(torch.empty(p.shape, dtype=p.dtype), p.requires_grad)
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = torch.empty(buffer.shape, dtype=buffer.dtype)
    return network


def without_floats(told: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same with nothing of floating-point tensors but their shapes."""
    return {n: weightless().from_tensor(v) if v.is_floating_point() else v for n, v in told.items()}


@contextmanager
def asking(network: nn.Module) -> Iterator[None]:
    """Raise OptionError where a network without memory cannot be asked anything."""
    try:
        yield
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise OptionError(
            f"a {type(network).__name__} cannot be asked without its weights, as for --dry-run: how it runs depends on what they make "
            f"of its inputs ({error}). To see how much memory it takes, train for an iteration (--iterations 1)"
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Torch logs a traceback wherever shapes do not fit, also to one who asks whether they do."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        with torch.no_grad():
            yield
    finally:
        logger.disabled = before
