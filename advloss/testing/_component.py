"""What the tests of all kinds share: the component by its name, its examples, and the state of the world."""

from __future__ import annotations

import copy
import random
import unittest
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar, NoReturn, cast

import torch
from torch import Tensor, nn

from advloss._create import create, load_target, options_of
from advloss._logits import Logits, as_scales
from advloss._registry import Entry, find
from advloss.specs import Kind, Spec


class ComponentTests:
    """Base of the kit's test classes. A subclass names the component; each method that begins with `test` is a check.

    Attributes:
        name: the component's short or full name.
        examples: options of the instances to check; by default those of the spec.
    """

    kind: ClassVar[Kind]
    name: ClassVar[str]
    examples: ClassVar[Sequence[Mapping[str, Any]]] = ()

    @property
    def entry(self) -> Entry:
        """The component's row in the catalogue."""
        return find(self.kind, self.name)

    @property
    def spec(self) -> Any:
        """What the component declares."""
        return cast(Spec, self.entry.spec)

    @property
    def options(self) -> list[dict[str, Any]]:
        """Options of each instance that is checked."""
        return [dict(example) for example in self.examples or self.spec.examples or ({},)]

    @property
    def known_options(self) -> Mapping[str, Any]:
        """The options that the component takes, by name."""
        return options_of(load_target(self.entry))

    def make(self, options: Mapping[str, Any], seed: int = 0) -> Any:
        """A new instance, the same for the same seed."""
        torch.manual_seed(seed)
        return create(self.kind, self.entry.full_name, options)


def expect(holds: object, message: str) -> None:
    """Fail with `message` unless it `holds`."""
    if not holds:
        raise AssertionError(message)


def not_applicable(reason: str) -> NoReturn:
    """Leave a check out."""
    raise unittest.SkipTest(reason)


def fails(call: Callable[..., Any], *args: Any, error: type[Exception] = Exception) -> bool:
    """Whether the call raises `error`."""
    try:
        call(*args)
    except error:
        return True
    return False


def finite(logits: Logits) -> bool:
    """Whether all logits are."""
    return all(bool(scale.isfinite().all()) for scale in as_scales(logits))


def same(one: Logits, other: Logits, tolerance: float = 0.0) -> bool:
    """Whether two results agree, bit by bit or within `tolerance` times (1 + the largest value)."""
    pairs = list(zip(as_scales(one), as_scales(other)))
    if len(as_scales(one)) != len(as_scales(other)) or any(a.shape != b.shape for a, b in pairs):
        return False
    return all(
        torch.equal(a, b) if tolerance == 0 else bool((a - b).abs().max() <= tolerance * (1 + b.abs().max()))
        for a, b in pairs
    )


def tensors_of(value: Any) -> list[Tensor]:
    """The tensors in `value`, a tensor, a mapping or None."""
    if isinstance(value, Mapping):
        return list(value.values())
    return [] if value is None else [value]


def state_of(module: nn.Module) -> dict[str, Tensor]:
    """A copy of a module's parameters and buffers."""
    return {n: t.detach().clone() for n, t in (*module.named_parameters(), *module.named_buffers())}


def changed(module: nn.Module, before: Mapping[str, Tensor]) -> list[str]:
    """Names of the parameters and buffers that are not as they were."""
    return [n for n, t in state_of(module).items() if not torch.equal(t, before[n])]


@contextmanager
def unchanged_world(*inputs: Tensor) -> Iterator[None]:
    """Fail when `inputs` or global state have changed inside. Drawing from torch's generator is no change; seeding is."""
    copies = [tensor.detach().clone() for tensor in inputs]
    settings, python = _settings(), random.getstate()
    yield
    for tensor, was in zip(inputs, copies):
        expect(torch.equal(tensor.detach(), was), f"an input of shape {tuple(was.shape)} was changed in place")
    for name, value in _settings().items():
        expect(value == settings[name], f"{name} was {settings[name]} and is {value}")
    expect(random.getstate() == python, "Python's random state has moved; draw from torch's generator")


def expect_no_seeding(call: Callable[..., Any], *args: Any) -> None:
    """Fail when the call seeds torch's global generator: its state afterwards must depend on the state before."""
    after = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        torch.rand(1)
        call(*args)
        after.append(torch.get_rng_state())
    expect(not torch.equal(*after), "torch's global generator was seeded; draw from it, or use a torch.Generator")


def copied(module: nn.Module) -> nn.Module:
    """A deep copy, for calls that move buffers."""
    return copy.deepcopy(module)


def _settings() -> dict[str, Any]:
    return {
        "the default dtype": torch.get_default_dtype(),
        "the grad mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "the number of threads": torch.get_num_threads(),
        "deterministic algorithms": torch.are_deterministic_algorithms_enabled(),
        "anomaly mode": torch.is_anomaly_enabled(),
    }
