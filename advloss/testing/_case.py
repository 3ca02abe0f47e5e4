"""One instance of a discriminator under test, and samples and conditions that suit it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from advloss._condition import Condition
from advloss._inputs import CONDITION_OPTIONS
from advloss._logits import Logits, as_scales
from advloss.specs import ConditionKind
from advloss.testing._component import ComponentTests
from advloss.testing._expect import expect

KINDS: tuple[str, ...] = get_args(ConditionKind)
_ATTRIBUTES = (
    "dims",
    "in_channels",
    "in_features",
    "resolution",
    "smallest",
    "batch_coupled",
    *CONDITION_OPTIONS.values(),
)


@dataclass(frozen=True)
class Case:
    """Options of an instance, and what it takes: by its own attributes, else by its options, else by its spec."""

    options: Mapping[str, Any]
    dims: int
    channels: int
    side: int
    fixed: bool
    takes: Mapping[str, int]
    value_range: tuple[float, float]
    batch_coupled: bool

    def __str__(self) -> str:
        return f"with {dict(self.options) or 'default options'}"

    def samples(self, count: int = 4, sides: Iterable[int] | None = None) -> Tensor:
        """Random samples `(count, channels, ...)` in the value range."""
        low, high = self.value_range
        return torch.rand((count, self.channels, *self.sides(sides))) * (high - low) + low

    def sides(self, sides: Iterable[int] | None = None) -> tuple[int, ...]:
        """Side lengths; the smallest ones unless given."""
        return tuple(sides or (self.side,) * self.dims)

    def condition(self, samples: Tensor) -> Condition | None:
        """A condition of `samples`: a tensor, a mapping where there are several, None where there are none."""
        parts = self.parts(samples)
        return next(iter(parts.values())) if len(parts) == 1 else parts or None

    def parts(self, samples: Tensor) -> dict[str, Tensor]:
        """The conditions of `samples`, by kind."""
        return {kind: self.part(kind, samples) for kind in self.takes}

    def part(self, kind: str, samples: Tensor, shift: int = 0) -> Tensor:
        """A condition of one kind; another `shift`, another one for every sample."""
        size, count = self.takes.get(kind, 3), len(samples)
        if kind in ("class", "time"):
            return (torch.arange(count) + shift) % size
        if kind == "vector":
            return torch.linspace(-1, 1, count * size).view(count, size).to(samples) + shift
        return samples.new_full((count, size, *samples.shape[2:]), 0.5 - shift)


def forward(module: nn.Module, samples: Tensor, condition: Condition | None = None) -> Logits:
    """Logits, by the call that an adversary makes."""
    return module(samples) if condition is None else module(samples, condition)


def stirred(module: nn.Module) -> nn.Module:
    """The module with its trained parameters moved a little: a layer that begins with zeros hides what is before it."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                size = float(parameter.square().mean().sqrt()) or 1.0
                parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1 * size)
    return module


class DiscriminatorCases(ComponentTests):
    """The instances of a discriminator that its checks go through."""

    kind = "discriminator"

    @property
    def cases(self) -> list[Case]:
        """Examples, and where they leave out something declared, the first one with the option for it."""
        made = [self.case(options) for options in self.options]
        first, known = dict(made[0].options), self.known_options
        for dims in self.spec.dims:
            if all(case.dims != dims for case in made) and "dims" in known:
                made.append(self.case({**first, "dims": dims}))
        for kind in self.spec.conditions:
            if all(kind not in case.takes for case in made) and CONDITION_OPTIONS[kind] in known:
                made.append(self.case({**first, CONDITION_OPTIONS[kind]: 3}))
        return made

    def case(self, options: Mapping[str, Any]) -> Case:
        """What an instance with these options takes."""
        module = self.make(options)
        defaults = {name: p.default for name, p in self.known_options.items()}
        said = {name: value for name, value in {**defaults, **options}.items() if isinstance(value, int)}
        said.update({name: getattr(module, name) for name in _ATTRIBUTES if hasattr(module, name)})
        dims = said.get("dims", self.spec.dims[0])
        channels = said.get("in_features", 2) if dims == 0 else said.get("in_channels", 3)
        fixed = getattr(module, "resolution", None) is not None
        side = said.get("resolution" if fixed else "smallest") or self.spec.smallest
        takes = {kind: said[option] for kind, option in CONDITION_OPTIONS.items() if said.get(option)}
        coupled = bool(said.get("batch_coupled", self.spec.batch_coupled))
        return Case(options, dims, channels, side, fixed, takes, self.spec.value_range or (-1.0, 1.0), coupled)

    def instances(self, count: int = 4) -> Iterable[tuple[Case, nn.Module, Tensor, Condition | None]]:
        """Each case with a module, samples for it and their condition."""
        for case in self.cases:
            module = stirred(self.make(case.options))
            samples = case.samples(count)
            yield case, module, samples, case.condition(samples)

    def expect_form(self, case: Case, logits: Any, count: int) -> None:
        """Fail unless `logits` of `count` samples are of the declared form."""
        given = _form(logits)
        expect(
            isinstance(logits, (Tensor, list, tuple)) and all(isinstance(t, Tensor) for t in as_scales(logits)),
            f"{case}: forward returned {given}; return a tensor or a list of them",
        )
        output = self.spec.output
        if output == "multi-scale":
            right = not isinstance(logits, Tensor) and all(t.ndim >= 1 and len(t) == count for t in logits)
        else:
            wanted = (count,) if output == "logit" else (count, 1)
            right = isinstance(logits, Tensor) and logits.shape[:2] == wanted and (logits.ndim > 2) == (output == "map")
        expect(right, f"{case}: output={output!r} is declared, and {count} samples gave {given}")


def _form(logits: Any) -> str:
    if isinstance(logits, Tensor):
        return f"logits {tuple(logits.shape)}"
    if isinstance(logits, (list, tuple)):
        return f"a list of {', '.join(map(_form, logits)) or 'nothing'}"
    return f"a {type(logits).__name__}"
