"""What a plugin says about its components, as plain data: no torch is imported here.

A hook returns a list of these. `target` names the class (for a recipe: the function) as
``"module:attribute"`` and is imported only when the component is built, so that listing a
catalogue stays cheap.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from advloss.errors import OptionError

API_VERSION = 1
"""The plugin contract that this release speaks (docs/plugin-api.md has the policy)."""

Kind = Literal["discriminator", "loss", "regularizer", "augmentation", "recipe"]
ConditionKind = Literal["class", "vector", "image", "time"]
Output = Literal["logit", "map", "multi-scale"]

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")  # line ends, and what moves a terminal's cursor
_TARGET = re.compile(rf"{_MODULE.pattern}:{_MODULE.pattern}")


@dataclass(frozen=True)
class Paper:
    """Where a component was published; `advloss cite` prints it as BibTeX.

    `authors` is written as BibTeX wants it (``"Goodfellow, Ian and others"``), `arxiv` without
    a prefix (``"1406.2661"``).
    """

    title: str
    authors: str
    year: int
    arxiv: str | None = None
    url: str | None = None

    def __post_init__(self) -> None:
        _check_fields(self, f"Paper {self.title!r}")


@dataclass(frozen=True, kw_only=True)
class Spec:
    """What all kinds have in common.

    Attributes:
        name: lower case with hyphens, for example ``"spectral-norm"``.
        target: ``"module:attribute"``, imported when the component is built.
        summary: one line for the catalogue.
        paper: its source, or None.
        requires: import names that the target needs beyond torch.
        extra: what to install when one is missing: an extra of the plugin's distribution.
        examples: options of small instances, which the conformance kit checks. Together they show everything that is
            declared; where they leave out a dimension or a kind of condition, the kit adds the option for it.
        api: the plugin API version that this was written against.
    """

    name: str
    target: str
    summary: str
    paper: Paper | None = None
    requires: tuple[str, ...] = ()
    extra: str | None = None
    examples: tuple[Mapping[str, Any], ...] = ()
    api: int = 1  # not API_VERSION: who says nothing wrote before there was another

    def __post_init__(self) -> None:
        always = ("name", "target", "summary", "api")  # what the others mean is for the version to say
        only = always if self.api != API_VERSION else None
        _check_fields(self, f"{type(self).__name__} {self.name!r}", only)

    @property
    def kind(self) -> Kind:
        return _KIND_OF[type(self)]


@dataclass(frozen=True, kw_only=True)
class DiscriminatorSpec(Spec):
    """What a discriminator can do.

    Attributes:
        dims: numbers of spatial dimensions that it takes; 0 means vectors `(N, features)`.
        value_range: the range it expects of samples; None when any will do.
        smallest: the smallest side length of its samples, with default options.
        fixed_size: whether all sides must equal the `resolution` that it was built for.
        conditions: condition kinds that it can use; empty when it takes none.
        output: ``"logit"`` `(N,)`, ``"map"`` `(N, 1, ...)`, or ``"multi-scale"``, a list of `(N, ...)`.
        features: True when it has frozen `features` and trained `heads` (a `FeatureDiscriminator`).
        double_backward: whether a second-order regularizer (exact R1, gradient penalty) works.
        batch_coupled: whether one sample's logits depend on the others of its batch.
        compiles: whether `torch.compile` takes it whole (``fullgraph=True``).
        pretrained: whether it loads pretrained weights by default; its option `pretrained` turns that off.
    """

    dims: tuple[int, ...] = (2,)
    value_range: tuple[float, float] | None = (-1.0, 1.0)
    smallest: int = 1
    fixed_size: bool = False
    conditions: tuple[ConditionKind, ...] = ()
    output: Output = "map"
    features: bool = False
    double_backward: bool = True
    batch_coupled: bool = False
    compiles: bool = True
    pretrained: bool = False


@dataclass(frozen=True, kw_only=True)
class LossSpec(Spec):
    """What a loss needs.

    Attributes:
        paired: whether the generator's term needs real logits.
        batch_coupled: whether a sample's term depends on the others of its batch.
        equilibrium: the logit that the discriminator's loss is least at where real and fake samples are alike (0 for
            the logistic losses, 1/2 for least squares); None where it does not matter, near 0 at least.
        regularizers: terms that belong to the loss by its paper's definition, by name with
            options; an adversary adds those that it was not given.
    """

    paired: bool = False
    batch_coupled: bool = False
    equilibrium: float | None = None
    regularizers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RegularizerSpec(Spec):
    """What a regularizer does, with its default options.

    Attributes:
        second_order: whether it differentiates the discriminator's gradient (double backward).
        batch_coupled: whether it couples the samples of a batch: then its term is not exact under accumulation.
        slope: the steepest slope by its samples at which it has no term: 0 for R1, 1 for a gradient penalty of one side or
            two; None where it does not look at slopes.
        constraint: whether it adds no term, and changes parameters after each step (weight clipping).
    """

    second_order: bool = False
    batch_coupled: bool = False
    slope: float | None = None
    constraint: bool = False


@dataclass(frozen=True, kw_only=True)
class AugmentationSpec(Spec):
    """What an augmentation takes: `dims` as in `DiscriminatorSpec`."""

    dims: tuple[int, ...] = (2,)


@dataclass(frozen=True, kw_only=True)
class RecipeSpec(Spec):
    """A paper's combination; its target is a function that returns an `advloss.Recipe`."""


_KIND_OF: dict[type[Spec], Kind] = {
    DiscriminatorSpec: "discriminator",
    LossSpec: "loss",
    RegularizerSpec: "regularizer",
    AugmentationSpec: "augmentation",
    RecipeSpec: "recipe",
}
SPEC_OF: dict[Kind, type[Spec]] = {kind: spec for spec, kind in _KIND_OF.items()}


def _is_line(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and not _CONTROL.search(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _is_options(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


def _all(value: Any, suits: Callable[[Any], bool]) -> bool:
    return isinstance(value, tuple) and all(map(suits, value))


_LINE = (_is_line, "one line of text")
_LINE_OR_NONE = (lambda v: v is None or _is_line(v), "one line of text, or None")
_FLAG = (lambda v: isinstance(v, bool), "True or False")
_NUMBER_OR_NONE = (lambda v: v is None or _is_number(v), "a number, or None")
_FIELDS: dict[str, tuple[Callable[[Any], bool], str]] = {
    # of all kinds
    "api": (lambda v: _is_count(v, 0), "the number of a plugin API version, as in 1"),
    "name": (lambda v: isinstance(v, str) and bool(_NAME.fullmatch(v)), "lower case, digits and single hyphens"),
    "target": (lambda v: isinstance(v, str) and bool(_TARGET.fullmatch(v)), "'package.module:Attribute'"),
    "summary": _LINE,
    "paper": (lambda v: v is None or isinstance(v, Paper), "an advloss.Paper, or None"),
    "requires": (
        lambda v: _all(v, lambda name: isinstance(name, str) and bool(_MODULE.fullmatch(name))),
        "a tuple of import names, as in ('timm',)",
    ),
    "extra": _LINE_OR_NONE,
    "examples": (lambda v: _all(v, _is_options), "a tuple of mappings from options to values, as in ({'width': 4},)"),
    # of discriminators and augmentations
    "dims": (
        lambda v: _all(v, lambda d: _is_count(d, 0) and d <= 3) and v != (),
        "a tuple of numbers of spatial dimensions, 0 to 3, as in (2,)",
    ),
    "value_range": (
        lambda v: v is None or (_all(v, _is_number) and len(v) == 2 and v[0] < v[1]),
        "the least and the greatest value, as in (-1.0, 1.0), or None",
    ),
    "smallest": (lambda v: _is_count(v, 1), "a side length, 1 or more"),
    "fixed_size": _FLAG,
    "conditions": (
        lambda v: _all(v, lambda kind: kind in get_args(ConditionKind)),
        f"a tuple of {', '.join(map(repr, get_args(ConditionKind)))}, or some of them, as in ('class',)",
    ),
    "output": (lambda v: v in get_args(Output), " or ".join(map(repr, get_args(Output)))),
    "features": _FLAG,
    "double_backward": _FLAG,
    "batch_coupled": _FLAG,
    "compiles": _FLAG,
    "pretrained": _FLAG,
    # of losses and regularizers
    "paired": _FLAG,
    "equilibrium": _NUMBER_OR_NONE,
    "regularizers": (
        lambda v: _is_options(v) and all(map(_is_options, v.values())),
        "a mapping from names to options, as in {'regularizers/r1': {'weight': 1.0}}",
    ),
    "second_order": _FLAG,
    "slope": _NUMBER_OR_NONE,
    "constraint": _FLAG,
    # of papers
    "title": _LINE,
    "authors": _LINE,
    "year": (lambda v: _is_count(v, 1), "a year, as in 2014"),
    "arxiv": _LINE_OR_NONE,
    "url": _LINE_OR_NONE,
}


def _check_fields(given: Any, what: str, only: tuple[str, ...] | None = None) -> None:
    """Raise OptionError for a field that is not what its attribute says: one wrong spec must fail alone, and early."""
    for name in only or [f.name for f in fields(given)]:
        value = getattr(given, name)
        suits, wanted = _FIELDS.get(name, (None, ""))
        if suits is not None and not suits(value):
            raise OptionError(f"{what}: {name}={reprlib.repr(value)}; give {wanted}")
