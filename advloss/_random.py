"""An adversary's random numbers: streams of its own that neither read nor move the script's."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

_OWN_GENERATOR = ("cuda", "xpu")


@contextmanager
def random_stream(device: torch.device, *key: int | str) -> Iterator[None]:
    """Inside, torch's global generators of the CPU and of `device` are seeded by `key`; after, they are as before.

    A stream is a function of its key (seed, rank, player, counters): nothing but integers needs to be saved to
    resume it, and one player's draws cannot depend on the other's.
    """
    digest = hashlib.blake2b(repr(key).encode(), digest_size=8).digest()
    seed = int.from_bytes(digest, "big") >> 1
    if device.type in _OWN_GENERATOR:
        module = torch.get_device_module(device)
        index = module.current_device() if device.index is None else device.index
        with torch.random.fork_rng([index], device_type=device.type), module.device(index):
            torch.default_generator.manual_seed(seed)
            module.manual_seed(seed)
            yield
    else:
        with torch.random.fork_rng([]):
            torch.default_generator.manual_seed(seed)
            yield


def stream_state(device: torch.device) -> tuple[Tensor, ...]:
    """Where the stream is that is in force on the CPU and on `device`."""
    states = [torch.default_generator.get_state()]
    if device.type in _OWN_GENERATOR:
        states.append(torch.get_device_module(device).get_rng_state(device))
    return tuple(states)


def set_stream_state(device: torch.device, states: tuple[Tensor, ...]) -> None:
    """Go on from where `stream_state` was called."""
    torch.default_generator.set_state(states[0])
    if device.type in _OWN_GENERATOR:
        torch.get_device_module(device).set_rng_state(states[1], device)
