"""The state of the process, which a component has to leave alone: random numbers, default dtype, grad mode and the like."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from advloss.testing._expect import expect

_CPU = torch.device("cpu")


@contextmanager
def restored_world() -> Iterator[None]:
    """Put settings and random states back at the end, so that what one check finds does not leak into the next."""
    settings, states, generator = _settings(), _states(), torch.get_rng_state()
    try:
        yield
    finally:
        for name, (get, put) in _SETTINGS.items():
            if get() != settings[name]:
                put(settings[name])
        for name, (_, put_state, _) in _sources().items():
            if name in states:
                put_state(states[name])
        torch.set_rng_state(generator)


@contextmanager
def unchanged_world(*inputs: Tensor) -> Iterator[None]:
    """Fail when `inputs` or global state have changed inside. Drawing from torch's generator is no change."""
    copies = [tensor.detach().clone() for tensor in inputs]
    with restored_world():
        _make_odd()
        settings, states = _settings(), _states()
        yield
        for tensor, was in zip(inputs, copies):
            expect(torch.equal(tensor.detach(), was), f"an input of shape {tuple(was.shape)} was changed in place")
        for name, value in _settings().items():
            expect(value == settings[name], f"{name} was {settings[name]} and is {value}")
        for name, state in _states().items():
            expect(state == states.get(name, state), f"{name} random state has moved; draw from torch's generator")


def expect_no_seeding(call: Callable[..., Any], *args: Any) -> None:
    """Fail when the call seeds torch's global generator: its state afterwards must depend on the state before."""
    after = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        torch.rand(1)
        call(*args)
        after.append(torch.get_rng_state())
    expect(not torch.equal(*after), "torch's global generator was seeded; draw from it, or use a torch.Generator")


def _put_default_device(device: torch.device) -> None:
    torch.set_default_device(None if device == _CPU else device)


def _put_cudnn_benchmark(enabled: bool) -> None:
    torch.backends.cudnn.benchmark = enabled


_SETTINGS: dict[str, tuple[Callable[[], Any], Callable[[Any], Any]]] = {
    "the default dtype": (torch.get_default_dtype, torch.set_default_dtype),
    "the default device": (torch.get_default_device, _put_default_device),
    "the grad mode": (torch.is_grad_enabled, torch.set_grad_enabled),
    "the number of threads": (torch.get_num_threads, torch.set_num_threads),
    "the precision of matrix products": (torch.get_float32_matmul_precision, torch.set_float32_matmul_precision),
    "deterministic algorithms": (torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms),
    "anomaly mode": (torch.is_anomaly_enabled, torch.autograd.set_detect_anomaly),
    "cudnn.benchmark": (lambda: torch.backends.cudnn.benchmark, _put_cudnn_benchmark),
}


def _settings() -> dict[str, Any]:
    return {name: get() for name, (get, _) in _SETTINGS.items()}


def _sources() -> dict[str, tuple[Callable[[], Any], Callable[[Any], Any], Callable[[int], Any]]]:
    """Random numbers other than torch's: how to read, to put back and to seed their state."""
    sources: dict[str, Any] = {"Python's": (random.getstate, random.setstate, random.seed)}
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is not None:
        sources["numpy's"] = (lambda: _plain(numpy.get_state()), numpy.set_state, numpy.seed)
    return sources


def _plain(state: tuple[Any, ...]) -> tuple[Any, ...]:
    return (state[0], state[1].tolist(), *state[2:])


def _states() -> dict[str, Any]:
    return {name: get() for name, (get, _, _) in _sources().items()}


def _make_odd() -> None:
    """A state that no component sets: one that sets what is there already would go unseen."""
    for _, _, seed in _sources().values():
        seed(20_117)
    if torch.get_default_device() == _CPU:
        torch.set_default_device("cpu:0")  # the same place
