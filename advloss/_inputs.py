"""What cannot be right is refused here, before any state changes.

A discriminator says what it takes by int attributes named as its options: `dims`, `in_channels`, `in_features`,
`resolution`, `smallest`, `num_classes`, `num_steps`, `condition_features`, `condition_channels`. What it does not
say is not checked.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from advloss._condition import Condition
from advloss._rules import others
from advloss._warn import warn_user
from advloss.errors import InputError, NonFiniteError

CONDITION_OPTIONS = {
    "class": "num_classes",
    "time": "num_steps",
    "vector": "condition_features",
    "image": "condition_channels",
}
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)  # what a discriminator computes in


def check_recording(call: str) -> None:
    """Raise InputError where autograd records nothing."""
    if not torch.is_grad_enabled() or torch.is_inference_mode_enabled():
        raise InputError(
            f"{call} is called under torch.no_grad() or torch.inference_mode(); call it outside of that: it "
            "detaches the samples itself"
        )


def check_samples(name: str, samples: Any, discriminator: nn.Module) -> None:
    """Raise InputError unless `samples` suit `discriminator`."""
    if not isinstance(samples, Tensor):
        raise InputError(f"{name} samples are a {type(samples).__name__}; give a torch.Tensor")
    _check_dense(f"{name} samples are", samples)
    shape = tuple(samples.shape)
    if samples.dtype not in FLOATS:
        raise InputError(
            f"{name} samples are {samples.dtype}; give floats of 16, 32 or 64 bits, images scaled to [-1, 1]: "
            "x / 127.5 - 1"
        )
    if samples.ndim < 2 or samples.numel() == 0:
        raise InputError(f"{name} samples have shape {shape}; give a batch (N, channels, ...) or (N, features), N >= 1")
    dims = _declared(discriminator, "dims")
    channels = _declared(discriminator, "in_channels" if dims != 0 else "in_features")
    if dims is not None and samples.ndim != dims + 2:
        raise InputError(f"{name} samples have shape {shape}; this discriminator takes {_shape_words(dims, channels)}")
    if channels is not None and shape[1] != channels:
        hint = ""
        if samples.ndim > 2 and shape[-1] == channels:
            hint = "; they look channels-last: permute them to channels-first"
        raise InputError(
            f"{name} samples have shape {shape}; this discriminator takes {_shape_words(dims, channels)}{hint}"
        )
    _check_size(name, shape, discriminator)


def check_pair(real: Tensor, fake: Tensor) -> None:
    """Raise InputError unless real and fake samples differ in their number at most."""
    if real.shape[1:] != fake.shape[1:]:
        raise InputError(
            f"real samples have shape {tuple(real.shape)}, fake ones {tuple(fake.shape)}; only N may differ"
        )


def check_device(name: str, samples: Tensor, device: torch.device) -> None:
    """Raise InputError unless `samples` are where the discriminator is."""
    if samples.device != device:
        raise InputError(
            f"{name} samples are on {samples.device}, the discriminator on {device}: call adversary.to({str(samples.device)!r}) "
            "or adversary.prepare(accelerator)"
        )


def check_condition(
    name: str, condition: Condition | None, count: int, discriminator: nn.Module, unconditional: bool = False
) -> None:
    """Raise InputError unless `condition` is what `discriminator` was built for; `unconditional` says that it takes none."""
    takes = _takes(discriminator)
    options = [attr for attr in CONDITION_OPTIONS.values() if hasattr(discriminator, attr)]
    if condition is None:
        if takes and _wants_condition(type(discriminator).forward):
            raise InputError(f"the {name} condition is missing; this discriminator was built with {_options(takes)}")
        return
    if unconditional:
        dims = _declared(discriminator, "dims")
        found = others("discriminator", lambda spec: spec.conditions and (dims is None or dims in spec.dims))
        raise InputError(
            f"a {name} condition is given, but a {type(discriminator).__name__} takes none; "
            + (f"try {found}" if found else "leave it out")
        )
    if options and not takes:
        raise InputError(
            f"a {name} condition is given, but this discriminator was built without one; "
            f"build it with {' or '.join(f'{attr}=' for attr in options)}"
        )
    parts = condition if isinstance(condition, Mapping) else {"": condition}
    if isinstance(condition, Mapping) and takes.keys() - condition.keys():
        missing = ", ".join(sorted(takes.keys() - condition.keys()))
        raise InputError(f"the {name} condition lacks {missing}; this discriminator was built with {_options(takes)}")
    if not isinstance(condition, Mapping) and len(takes) > 1:
        raise InputError(f"the {name} condition is one tensor; give a mapping with {', '.join(takes)}")
    for key, part in parts.items():
        kind = key or next(iter(takes), "")
        _check_part(
            f"{name} condition" + (f"[{key!r}]" if key else ""), part, count, kind, takes.get(kind), discriminator
        )


def cast(samples: Tensor, dtype: torch.dtype) -> Tensor:
    """`samples` as `dtype`; a copy of those made in inference mode, which autograd cannot keep for a backward."""
    return samples.to(dtype, copy=samples.is_inference())


def cast_condition(condition: Condition | None, discriminator: nn.Module, dtype: torch.dtype) -> Condition | None:
    """`condition` as `cast` makes it; class indices and what the discriminator does not declare keep their dtype."""
    takes = _takes(discriminator)

    def part_as(kind: str, part: Tensor) -> Tensor:
        part = part.detach() if part.requires_grad else part  # gradients flow into samples, and nothing else
        return cast(part, dtype if kind in takes and kind in ("vector", "image") else part.dtype)

    if isinstance(condition, Mapping):
        parts = {kind: part_as(kind, part) for kind, part in condition.items()}
        return condition if all(part is condition[kind] for kind, part in parts.items()) else parts
    return condition if condition is None else part_as(next(iter(takes), ""), condition)


def check_logits(logits: Any, count: int, discriminator: nn.Module) -> None:
    """Raise InputError unless `logits` are a floating-point tensor `(N, ...)` of `count` samples, or a list of them."""
    scales = logits if isinstance(logits, (list, tuple)) and logits else [logits]
    for scale in scales:
        given = f"a {type(scale).__name__}"
        if isinstance(scale, Tensor):
            given = f"{scale.dtype} {tuple(scale.shape)}"
            if scale.ndim >= 1 and len(scale) == count and scale.numel() and scale.is_floating_point():
                continue
        raise InputError(
            f"{class_of(discriminator)} returned {given} for {count} samples; logits are a floating-point tensor "
            "(N, ...), or a list of them"
        )


@contextmanager
def unchanged(samples: Tensor, discriminator: nn.Module) -> Iterator[None]:
    """Raise InputError when `samples` are written to inside, by the discriminator or an augmentation."""
    version = None if samples.is_inference() else samples._version
    yield
    if version is not None and samples._version != version:
        raise InputError(
            f"{class_of(discriminator)}, or an augmentation before it, changed its input in place; use the "
            "out-of-place form (no inplace=True in the first layer, no x += ...)"
        )


def class_of(module: nn.Module) -> str:
    """A module's class, with the package that it comes from."""
    return f"{type(module).__module__}.{type(module).__qualname__}"


def check_finite(name: str, samples: Tensor) -> None:
    """Raise NonFiniteError when `samples` hold NaN or infinity. A sum finds them in one pass."""
    if not math.isfinite(samples.detach().sum()) and not bool(torch.isfinite(samples).all()):
        bad = int((~torch.isfinite(samples)).flatten(1).any(1).sum())
        raise NonFiniteError(
            f"{name} samples hold NaN or infinity, in {bad} of {len(samples)} samples; look at their maker"
        )


def check_finite_condition(name: str, condition: Condition | None) -> None:
    """Raise NonFiniteError when a vector or image in `condition` holds NaN or infinity."""
    for part in condition.values() if isinstance(condition, Mapping) else (condition,):
        if isinstance(part, Tensor) and part.is_floating_point() and not bool(part.isfinite().all()):
            raise NonFiniteError(f"the {name} condition holds NaN or infinity; look at its maker")


def warn_about_range(real: Tensor) -> None:
    """Warn when images declared as [-1, 1] look like [0, 1] or [0, 255]."""
    low, high = real.detach().aminmax()
    if low >= 0 and high > 0.05:
        seen = "[0, 1]" if high <= 1 else "[0, 255]" if high > 2 else f"[0, {float(high):.2g}]"
        warn_user(f"real images look like {seen}, where [-1, 1] is expected: scale them (x * 2 - 1)")


def _check_size(name: str, shape: tuple[int, ...], discriminator: nn.Module) -> None:
    sides = shape[2:]
    resolution, smallest = _declared(discriminator, "resolution"), _declared(discriminator, "smallest")
    if resolution is not None and any(side != resolution for side in sides):
        raise InputError(f"{name} samples have sides {sides}; this discriminator was built for resolution={resolution}")
    if smallest is not None and any(side < smallest for side in sides):
        raise InputError(
            f"{name} samples have sides {sides}; this discriminator needs at least {smallest}: give larger "
            "samples, or build it shallower"
        )


def _check_part(name: str, part: Any, count: int, kind: str, size: int | None, discriminator: nn.Module) -> None:
    if not isinstance(part, Tensor):
        raise InputError(f"the {name} is a {type(part).__name__}; give a torch.Tensor")
    if size is not None:
        _check_dense(f"the {name} is", part)
    if part.ndim == 0 or len(part) != count:
        raise InputError(f"the {name} has shape {tuple(part.shape)} for {count} samples; give one entry a sample")
    if size is None:
        return
    if part.device != _device(discriminator):
        raise InputError(
            f"the {name} is on {part.device}, the discriminator on {_device(discriminator)}; move it there"
        )
    if kind in ("class", "time"):
        if part.dtype not in (torch.int64, torch.int32) or part.ndim != 1:
            raise InputError(f"the {name} is {part.dtype} of shape {tuple(part.shape)}; give class indices (N,), int64")
        if part.device.type == "cpu" and (part.min() < 0 or part.max() >= size):
            raise InputError(
                f"the {name} has labels {int(part.min())} to {int(part.max())}; there are classes 0 to {size - 1}"
            )
        return
    if (part.ndim != 2 if kind == "vector" else part.ndim < 3) or part.shape[1] != size:
        raise InputError(
            f"the {name} has shape {tuple(part.shape)}; this discriminator was built for {size} {kind} channels"
        )
    if part.dtype not in FLOATS:
        raise InputError(f"the {name} is {part.dtype}; give floats like the samples, images scaled to [-1, 1]")


def _check_dense(what: str, tensor: Tensor) -> None:
    """Before anybody asks for a shape: some layouts have none."""
    if tensor.is_nested or tensor.layout is not torch.strided:
        layout = "nested" if tensor.is_nested else f"in the layout {tensor.layout}"
        raise InputError(f"{what} {layout}; give a dense tensor: {'pad it' if tensor.is_nested else 'x.to_dense()'}")


def _takes(discriminator: nn.Module) -> dict[str, int]:
    """The conditions that it was built for, with their sizes."""
    return {kind: size for kind, attr in CONDITION_OPTIONS.items() if (size := _declared(discriminator, attr))}


@functools.lru_cache
def _wants_condition(forward: Any) -> bool:
    """Whether its second input is a condition: timm's models have `num_classes`, and take an attention mask at most."""
    _, _, *others = inspect.signature(forward).parameters.values()  # itself, samples
    return any(other.name == "condition" or other.default is other.empty for other in others[:1])


def _device(discriminator: nn.Module) -> torch.device:
    return next(discriminator.parameters()).device


def _declared(discriminator: nn.Module, name: str) -> int | None:
    value = getattr(discriminator, name, None)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _options(takes: Mapping[str, int]) -> str:
    return ", ".join(f"{CONDITION_OPTIONS[kind]}={size}" for kind, size in takes.items())


def _shape_words(dims: int | None, channels: int | None) -> str:
    if dims == 0:
        return f"(N, {channels if channels is not None else 'features'})"
    sides = ", ".join(("length",) if dims == 1 else ("depth", "height", "width")[3 - dims :]) if dims else "..."
    return f"(N, {channels if channels is not None else 'channels'}, {sides})"
