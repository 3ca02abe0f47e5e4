"""Combinations that cannot work, refused when an adversary is built, with the nearest one that can."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.utils import parametrize

from advloss._features import FeatureDiscriminator
from advloss._registry import OK, list_components, shared_names
from advloss.errors import CombinationError
from advloss.specs import AugmentationSpec, DiscriminatorSpec, Kind, Spec

Built = Mapping[str, tuple[Any, Spec | None]]
"""Components with their specs (None for objects of the user's own), by name."""


@dataclass(frozen=True)
class Players:
    """What an adversary is built from."""

    discriminator: nn.Module
    spec: Spec | None
    regularizers: Built
    augmentations: Built


@dataclass(frozen=True)
class Rule:
    """A rule of combination.

    Attributes:
        refuses: what cannot work, and why.
        instead: the nearest combination that can.
        broken: the messages of what is refused; None for a rule that is checked when samples come in.
    """

    refuses: str
    instead: str
    broken: Callable[[Players], Iterator[str]] | None = None


def check_combination(discriminator: nn.Module, spec: Spec | None, regularizers: Built, augmentations: Built) -> None:
    """Raise CombinationError for a rule that is broken."""
    players = Players(discriminator, spec, regularizers, augmentations)
    for rule in RULES:
        for message in rule.broken(players) if rule.broken else ():
            raise CombinationError(message)


def others(kind: Kind, suits: Callable[[Any], bool]) -> str:
    """Names of usable components whose spec `suits`, for an error: ``"'r1' or 'lecam'"``; "" when there are none."""
    rows = [row for row in list_components(kind) if row.status == OK and row.spec is not None and suits(row.spec)]
    shared = shared_names()
    names = [repr(row.full_name if (kind, row.name) in shared else row.name) for row in rows]
    return " or ".join(names[:4])


def _features(players: Players) -> Iterator[str]:
    for name, (regularizer, _) in players.regularizers.items():
        by_features = "features" in (getattr(regularizer, "inputs", None), getattr(regularizer, "second_order", None))
        if by_features and not isinstance(players.discriminator, FeatureDiscriminator):
            yield (
                f"regularizer {name!r} with inputs='features' differentiates by a discriminator's frozen features, and "
                f"{type(players.discriminator).__name__} has none; use inputs='samples'"
            )


def _double_backward(players: Players) -> Iterator[str]:
    spec, compiled = players.spec, hasattr(players.discriminator, "_orig_mod")
    lacks = isinstance(spec, DiscriminatorSpec) and not spec.double_backward
    if not (lacks or compiled):
        return
    for name, (regularizer, _) in players.regularizers.items():
        if getattr(regularizer, "second_order", None) == "samples":
            what = repr(spec.name) if spec is not None else type(players.discriminator).__name__
            why = f"{what} has no double backward" if lacks else "a compiled module has no double backward"
            yield f"regularizer {name!r} differentiates the discriminator twice, and {why}; " + _first_order(
                players, name, regularizer
            )


def _first_order(players: Players, name: str, regularizer: Any) -> str:
    """The way out of double backward: another form of the regularizer, or else another discriminator."""
    forms = []
    if isinstance(players.discriminator, FeatureDiscriminator) and hasattr(regularizer, "inputs"):
        forms.append("inputs='features'")
    if hasattr(regularizer, "method"):
        forms.append("method='finite-difference'")
    if forms:
        return f"build {name!r} with {' or '.join(forms)}"
    if hasattr(players.discriminator, "_orig_mod"):
        return "pass the module before torch.compile with compile=True (such steps then run uncompiled), or use r1 or r2 with method='finite-difference'"
    spec = players.spec
    if not isinstance(spec, DiscriminatorSpec):
        return "drop it, or use r1 or r2 with method='finite-difference'"
    found = others(
        "discriminator",
        lambda s: s.double_backward and s.features == spec.features and set(s.dims) >= set(spec.dims),
    )
    return f"leave it out, or use the discriminator {found}" if found else "leave it out"


def _wrappers(players: Players) -> Iterator[str]:
    """The adversary averages gradients itself: a wrapper that does so too would wait for its own backward, in vain."""
    names = {type(module).__name__ for module in players.discriminator.modules()}
    found = names & {"DistributedDataParallel", "DataParallel", "FullyShardedDataParallel"}
    if any(type(p).__name__ == "DTensor" for p in players.discriminator.parameters()):
        found = {"FSDP2 (fully_shard)"}
    if found:
        yield (
            f"the discriminator is wrapped in {found.pop()}; give it bare, as its gradients are averaged by "
            "adversary.prepare(accelerator). Where a second-order term makes it too large for one device, "
            "method='finite-difference' needs less memory"
        )


def _parts_without_double_backward(players: Players) -> Iterator[str]:
    for name, (regularizer, _) in players.regularizers.items():
        order, part = getattr(regularizer, "second_order", None), players.discriminator
        if order == "features" and isinstance(part, FeatureDiscriminator):
            part = part.heads
        for place, module in part.named_modules() if order is not None else ():
            compiled = hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
            synchronized = isinstance(module, nn.SyncBatchNorm)
            if compiled or synchronized:
                what = "is compiled (torch.compile)" if compiled else "is a SyncBatchNorm"
                yield (
                    f"regularizer {name!r} differentiates the discriminator twice, and {place or 'the discriminator'} "
                    f"{what}, which has no double backward; {_first_order(players, name, regularizer)}"
                )


def _normalized_weights(players: Players) -> Iterator[str]:
    """A bound on stored parameters is no bound on the weights that a normalization computes from them."""
    constraints = [n for n, (_, spec) in players.regularizers.items() if getattr(spec, "constraint", False)]
    layers = [place for place, module in players.discriminator.named_modules() if _computes_its_weight(module)]
    for name in constraints if layers else ():
        yield (
            f"regularizer {name!r} changes stored parameters, and {layers[0] or 'the discriminator'} computes its weight "
            "from them (spectral or weight norm), which undoes it; leave it out, or build the discriminator without "
            "that norm"
        )


def _computes_its_weight(module: nn.Module) -> bool:
    hooks = {type(hook).__name__ for hook in module._forward_pre_hooks.values()}  # torch's older form
    trains = any(parameter.requires_grad for parameter in module.parameters())
    return trains and (parametrize.is_parametrized(module) or bool(hooks & {"SpectralNorm", "WeightNorm"}))


def batch_coupled(parts: Built) -> list[str]:
    """Names of the parts in which one sample's term depends on the others of its batch, as they declare it."""
    found = []
    for name, (part, spec) in parts.items():
        layers = part.modules() if isinstance(part, nn.Module) else ()
        normalizes = any(isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training for layer in layers)
        if getattr(part, "batch_coupled", getattr(spec, "batch_coupled", False)) or normalizes:
            found.append(name)
    return found


def _dimensions(players: Players) -> Iterator[str]:
    dims = getattr(players.discriminator, "dims", None)
    for name, (_, spec) in players.augmentations.items():
        if isinstance(spec, AugmentationSpec) and dims is not None and dims not in spec.dims:
            found = others("augmentation", lambda s: dims in s.dims)
            yield (
                f"augmentation {name!r} takes samples of {' or '.join(map(str, spec.dims))} spatial dimensions, this "
                f"discriminator of {dims}; leave it out" + (f", or use {found}" if found else "")
            )


RULES: tuple[Rule, ...] = (
    Rule(
        'a regularizer by features (`inputs="features"`) with a discriminator that has no frozen features',
        'the same regularizer by samples (`inputs="samples"`)',
        _features,
    ),
    Rule(
        "a second-order regularizer (exact R1, R2, a gradient penalty) with a discriminator that declares no "
        "`double_backward` (fused attention), or one that went through `torch.compile`",
        "its finite-difference form, or its form by features; where it has neither, a discriminator of the same kind "
        "that has double backward; for a compiled one, the bare module with `compile=True`, which leaves such steps uncompiled",
        _double_backward,
    ),
    Rule(
        "a second-order regularizer with a discriminator of which a part is compiled or a `SyncBatchNorm`",
        "its finite-difference form",
        _parts_without_double_backward,
    ),
    Rule(
        "a constraint on parameters (weight clipping) with a discriminator whose weights go through spectral or weight norm",
        "the norm alone, or a discriminator without it",
        _normalized_weights,
    ),
    Rule(
        "a discriminator inside DistributedDataParallel, DataParallel or FSDP",
        "the bare module: `adversary.prepare(accelerator)` averages its gradients",
        _wrappers,
    ),
    Rule(
        "activation checkpointing inside a discriminator, but for the non-reentrant kind in one without buffers, in its "
        "own turn",
        "`checkpoint=True` of the adversary, which is exact in all of these cases, or smaller micro-batches",
    ),
    Rule(
        "an augmentation with a discriminator of dimensions that it does not declare",
        "an augmentation that declares them",
        _dimensions,
    ),
    Rule(
        "a condition for a discriminator that takes none, or was built without the option for it",
        "that option, or a discriminator that declares this kind of condition",
    ),
    Rule(
        "a loss that declares `paired`, without real samples, or with another number of them than of fakes",
        "`generator_loss(fake, real=batch)` with equal batches, or a loss that is not paired",
    ),
    Rule(
        "a gradient penalty between real and fake samples whose conditions or numbers differ",
        "R1, which looks at real samples alone",
    ),
    Rule(
        "`discriminator_loss` under several processes, where nobody would average the gradients",
        "`discriminator_step`",
    ),
)
