"""What a plugin says about its components, as plain data: no torch is imported here.

A hook returns a list of these. `target` names the class (for a recipe: the function) as
``"module:attribute"`` and is imported only when the component is built, so that listing a
catalogue stays cheap.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

API_VERSION = 1
"""The plugin contract that this release speaks (docs/plugin-api.md has the policy)."""

Kind = Literal["discriminator", "loss", "regularizer", "augmentation", "recipe"]
ConditionKind = Literal["class", "vector", "image", "time"]

_NAME = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")
_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


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
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"component name {self.name!r}: use lower case, digits and single hyphens")
        if not _TARGET.fullmatch(self.target):
            raise ValueError(f"target {self.target!r} of {self.name!r}: write it as 'package.module:Attribute'")

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
    output: Literal["logit", "map", "multi-scale"] = "map"
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
        slope: the slope by its samples that it draws the discriminator to: 0 for R1, 1 for a gradient penalty; None
            where it does not look at slopes.
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
