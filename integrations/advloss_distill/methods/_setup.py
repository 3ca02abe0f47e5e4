"""What methods are built from, and what they are."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer

from advloss import Adversary, DiscriminatorSpec, MakeOptimizer, OptionError, create_discriminator, list_components
from advloss_distill._any_timestep import AnyTimestep
from advloss_distill._distill import Shown
from advloss_distill._family import Family
from advloss_distill._guidance import Guidance
from advloss_distill._noised_data import NoisedData
from advloss_distill._simulation import BackwardSimulation, Conditions, Data, SamplingPath
from advloss_distill._student_scheduler import spread
from advloss_distill._term import Term

Named = tuple[Any, dict[str, Any]]
"""A discriminator, by name or class, and its options: what `advloss.parse_component` returns."""
NamedLoss = str | tuple[str, dict[str, Any]]
"""A loss, by name, or with its options."""
Augmentations = Sequence[str | tuple[str, dict[str, Any]]]
"""By name, or with their options."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is there before a method is chosen.

    Attributes:
        family, pipeline: the teacher's; it is on the device, and frozen by what is built.
        data: real samples and conditions.
        example: conditions of one sample or more, to look at their sizes.
        paths: timesteps of the student (`sampling_paths`).
        batch_size: of the student.
        first: share of a batch of its own samples at the first step (`spread`).
        lora: rank of an adapter in place of all weights, or 0.
        optimizer: of the discriminator; None is the method's.
        scheduler: of the discriminator's rate, from its optimizer, or None.
        backward_simulation: train on the student's own samples, noised again; None as the method has it.
    """

    family: Family
    pipeline: Any
    data: Data
    example: Conditions
    paths: Sequence[SamplingPath]
    batch_size: int
    first: float = 0.5
    lora: int = 0
    optimizer: MakeOptimizer | None = None
    scheduler: Callable[[Optimizer], Any] | None = None
    backward_simulation: bool | None = None

    @property
    def teacher(self) -> Any:
        """The network that is distilled."""
        return self.family.network(self.pipeline)

    @property
    def vae(self) -> Any:
        """The pipeline's, beside the teacher."""
        vae = getattr(self.pipeline, "vae", None)
        return vae if vae is None else vae.to(next(self.teacher.parameters()).device)

    @property
    def num_classes(self) -> int | None:
        """For classes in place of prompts, their number."""
        return self.family.num_classes(self.teacher)

    def student(self) -> nn.Module:
        """A copy of the teacher, all of it or an adapter trainable."""
        return self.family.adapted(self.teacher, self.lora) if self.lora else self.family.student(self.teacher)

    def inputs(self, backward: bool) -> BackwardSimulation | NoisedData:
        """The student's inputs at its timesteps: its own samples, or real ones; `backward` is the method's way."""
        if backward if self.backward_simulation is None else self.backward_simulation:
            counts = spread(self.paths, self.batch_size, self.first)
            return BackwardSimulation(self.family.diffusion, self.paths, counts)
        return NoisedData(self.family.diffusion, max(self.paths, key=len), self.batch_size, self.data)

    def guidance(self, scale: float) -> Guidance | None:
        """Of the teacher; None at 1.

        Raises:
            OptionError: the family knows none, or the pipeline has no text encoder.
        """
        return None if scale == 1 else Guidance(scale, self.family.nothing(self.pipeline))

    def judge(self, component: Named, channels: int, resolution: int, steps: int, further: int = 0) -> nn.Module:
        """The discriminator, built with what `told` adds.

        Raises:
            OptionError: what it will see is too small for it.
        """
        judge = created(self.told(component, channels, resolution, steps, further))
        smallest = getattr(judge, "smallest", None)
        if isinstance(smallest, int) and resolution < smallest:
            raise OptionError(
                f"{component[0]!r}, as it is built, needs samples of at least {smallest} a side, and is shown {resolution} x "
                f"{resolution}: build it shallower, or show it decoded images or a larger crop of them (--pixels, --crop)"
            )
        return judge

    def told(self, component: Named, channels: int, resolution: int, steps: int, further: int = 0) -> Named:
        """`component` with the options that follow from what it will see: sizes, and the conditions that it can take.

        Of one that is wrapped around another, its own options and the other's come first.

        Args:
            further: length of what comes beside the text's vector.
        """
        layers = wrapped(component)
        spec = spec_of(layers[-1])
        if spec is None:
            return component
        sizes = {**self._sizes(further), "time": ("num_steps", steps)}
        follow = dict(sizes[kind] for kind in spec.conditions if kind in sizes)
        if spec.fixed_size:
            follow["resolution"] = resolution
        given = {option for _, options in layers for option in options}
        follow = {n: v for n, v in {"in_channels": channels, **follow}.items() if n not in given}
        name, options = component
        return name, {**follow, **options}

    def shown(self, component: Named, shown: Shown, further: int = 0, **told: object) -> Shown:
        """What `component` is to be shown: by `shown`, and no conditions where it can be told none of those that there are.

        Args:
            further: as in `told`.
            told: the method's options that change conditions alone, with their values.

        Raises:
            OptionError: one of these is set, for a discriminator that is told nothing.
        """
        spec = spec_of(wrapped(component)[-1])
        if spec is None or {"time", *self._sizes(further)} & set(spec.conditions):
            return shown
        for option, value in told.items():
            if value:
                raise OptionError(
                    f"{component[0]!r} is told nothing beside the sample, so that {option}={value} means nothing to it: leave it "
                    "out, or take a discriminator with conditions, such as projection or dino"
                )
        return Untold(shown)

    def _sizes(self, further: int) -> dict[str, tuple[str, int]]:
        """Conditions that a sample comes with, each with the option that a discriminator is told its size by."""
        text = self.family.text(self.example)
        features = (0 if text is None else text.shape[1]) + further
        sizes = {"class": ("num_classes", self.num_classes), "vector": ("condition_features", features)}
        return {kind: (option, size) for kind, (option, size) in sizes.items() if size}


class Untold:
    """What is shown, for a discriminator that is told nothing."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown

    def __call__(self, fake: Tensor, real: Tensor, judged: Any) -> tuple[Tensor, Tensor, None]:
        fake, real, _ = self._shown(fake, real, judged)
        return fake, real, None


@dataclass(frozen=True, kw_only=True)
class Method:
    """What a method gives to `Distillation`: ``Distillation(family, teacher, **method.arguments(), ...)``."""

    student: nn.Module
    adversary: Adversary | None
    simulation: BackwardSimulation | NoisedData | AnyTimestep
    term: Term | None = None
    distillation_weight: float = 0.0
    further: dict[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """By their names there."""
        return {**{name: value for name, value in vars(self).items() if name != "further"}, **self.further}


def wrapped(component: Named) -> list[Named]:
    """`component`, the discriminator that is wrapped in it, by its option or that option's default, and so on inwards."""
    target, options = component
    row = _row(component)
    if row is not None:
        target = row.target or (pkgutil.resolve_name(row.spec.target) if row.spec is not None else target)
    option = inspect.signature(target).parameters.get("discriminator") if callable(target) else None
    inner = options.get("discriminator", option.default if option else None)
    if isinstance(inner, str):
        inner = (inner, {})
    if not (isinstance(inner, (tuple, list)) and len(inner) == 2):
        return [component]
    return [component, *wrapped((inner[0], inner[1]))]


def spec_of(component: Named) -> DiscriminatorSpec | None:
    """What the catalogue says about it; None of a class that it does not have."""
    row = _row(component)
    return row.spec if row is not None and isinstance(row.spec, DiscriminatorSpec) else None


def _row(component: Named) -> Any:
    """The catalogue's, of a name or a class."""
    named = component[0]
    own = f"{named.__module__}:{named.__qualname__}" if isinstance(named, type) else None
    for row in list_components("discriminator"):
        if named in (row.name, row.full_name, row.target) or (row.spec is not None and own == row.spec.target):
            return row
    return None


def created(component: Named) -> nn.Module:
    """The discriminator."""
    target, options = component
    return create_discriminator(target, **options) if isinstance(target, str) else target(**options)
