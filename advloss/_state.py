"""Saved state: tensors in safetensors, the rest as JSON in its header. No pickle.

A file appears whole or not at all: it is written under a temporary name, flushed and renamed.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from advloss.errors import StateError

FORMAT = "advloss-state-1"


def save_state(state: Mapping[str, Any], path: Path | str) -> None:
    """Write a nested state (mappings, sequences, numbers, strings, tensors) to `path`.

    Raises:
        OSError: the disk is full, ...; what was at `path` is whole.
        StateError: something else is in the state.
    """
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    tree = json.dumps(_pack(state, tensors, ""))
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.touch()
        mode = temporary.stat().st_mode  # what the umask says; safetensors lets nobody else read
        save_file(tensors, temporary, metadata={"format": FORMAT, "tree": tree, "digest": _digest(tree, tensors)})
        temporary.chmod(mode)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except SafetensorError as error:  # it wraps the system's errors
        raise OSError(f"{path} could not be written ({error}); what was there before is whole") from error
    finally:
        temporary.unlink(missing_ok=True)


def load_state(path: Path | str) -> Any:
    """Read what `save_state` wrote; tensors are on the CPU.

    Raises:
        StateError: no such file, or not one that `save_state` wrote.
    """
    path = Path(path)
    if not path.is_file():
        raise StateError(f"{path} is missing: this checkpoint was saved without the adversary, or is incomplete")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            # copies: what safetensors returns is the file itself, mapped, and would change or crash with it
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise StateError(f"{path} has format {metadata.get('format')!r}; expected {FORMAT!r}")
        if metadata["digest"] != _digest(metadata["tree"], tensors):
            raise ValueError("its digest differs")
        return _unpack(json.loads(metadata["tree"]), tensors)
    except (SafetensorError, KeyError, ValueError, TypeError, RecursionError) as error:
        if isinstance(error, StateError):
            raise
        raise StateError(f"{path} is damaged ({type(error).__name__}: {error}); use an older checkpoint") from error


def gathered_by(state: Mapping[str, Any]) -> dict[str, Any] | None:
    """Of an adversary's state, what an unfinished accumulation holds; it differs between processes until its mean is taken."""
    update = state["update"]
    names = ("gradients", "buffers", "logits", "finite")
    return {"counters": state["counters"], "update": {n: update[n] for n in names}} if update["count"] else None


def with_gathered(state: Mapping[str, Any], gathered: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """The main process's state with what this one had gathered, as `gathered_by` returned it.

    Raises:
        StateError: it is of another step.
    """
    if gathered is None:
        return state
    if gathered["counters"] != state["counters"]:
        raise StateError("what a process had gathered is of another step than the state of the main process")
    return {**state, "update": {**state["update"], **gathered["update"]}}


def check_fits(own: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise StateError unless `given` has the parts, tensor names, types and shapes of `own`, and finite values.

    An unfinished accumulation may hold NaN: its step is skipped.
    """
    if not isinstance(given, Mapping) or own.keys() != given.keys():
        found = sorted(given) if isinstance(given, Mapping) else type(given).__name__
        raise StateError(f"an adversary's state has {sorted(own)}; given: {found}")
    for part in ("discriminator", "regularizers", "augmentations"):
        mine, theirs = dict(_flat(own[part])), dict(_flat(given[part]))
        if mine.keys() != theirs.keys():
            names = sorted(mine.keys() ^ theirs.keys())
            raise StateError(f"{part}: only one of the two has {', '.join(names[:5])}; build the adversary as it was")
        for name, tensor in mine.items():
            other = theirs[name]
            if not isinstance(tensor, Tensor):  # a module's `get_extra_state`
                continue
            if not isinstance(other, Tensor) or tensor.shape != other.shape:
                shape = tuple(other.shape) if isinstance(other, Tensor) else type(other).__name__
                raise StateError(f"{part}: {name} is {tuple(tensor.shape)} here, {shape} in the state")
            if tensor.is_floating_point() != other.is_floating_point():
                raise StateError(f"{part}: {name} is {tensor.dtype} here, {other.dtype} in the state")
            if other.is_floating_point() and not _finite_where(tensor, other):
                raise StateError(f"{part}: {name} holds NaN or infinity in the state; use an older checkpoint")
    if own["counters"].keys() != given["counters"].keys() or own["update"].keys() != given["update"].keys():
        raise StateError("counters or optimizer of the state are from another version of advloss")
    counts = {**given["counters"], "micro-batches": given["update"]["count"]}
    if not all(type(n) is int and (n >= 0 or name == "seed") for name, n in counts.items()):
        raise StateError(f"counters of the state are {counts}; they are whole numbers")
    pull = given["fake_grad_norm"]
    if pull is not None and not (type(pull) is float and math.isfinite(pull)):
        raise StateError(f"fake_grad_norm is {pull!r} in the state; expected a finite number or None")
    if (own["scheduler"] is None) != (given["scheduler"] is None):
        raise StateError("only one of the two has a scheduler; build the adversary as it was")
    _check_optimizer(own["update"]["optimizer"], given["update"]["optimizer"])
    if own["scheduler"] is not None:
        check_names(own["scheduler"], given["scheduler"], "scheduler")
    for name, part in (("optimizer", given["update"]["optimizer"]), ("scheduler", given["scheduler"])):
        check_finite(part, name)


def _finite_where(own: Tensor, other: Tensor) -> bool:
    """Whether `other` is finite, but for the places of a mask: those that are the same infinity in `own`."""
    other = other.to(own.device)
    return bool((other.isfinite() | (other.isinf() & (other == own))).all())


def check_names(own: Mapping[str, Any], given: Any, place: str) -> None:
    """Raise StateError if `given` has a name that `own` lacks: a scheduler would take any as an attribute.

    Of weights also if it lacks one, or one has another shape.
    """
    if not isinstance(given, Mapping):
        raise StateError(f"{place} has {_some(own)}; the state is of another kind, a {type(given).__name__}")
    if own and all(isinstance(value, Tensor) for value in own.values()):
        _check_weights(own, given, place)
    elif strange := sorted(map(str, given.keys() - own.keys())):
        raise StateError(f"{place} has {_some(own)}; the state is of another kind, with {_some(strange)}")


def _check_weights(own: Mapping[str, Tensor], given: Mapping[str, Any], place: str) -> None:
    """Name a few of what differs: a network has hundreds of names."""
    differs = []
    for where, names in (("the state", given.keys() - own.keys()), ("this run", own.keys() - given.keys())):
        if names:
            differs.append(f"only {where} has {_some(sorted(names))}")
    shapes = {name: (tuple(getattr(given[name], "shape", ())), tuple(own[name].shape)) for name in own if name in given}
    changed = [f"{name} (was {then}, is {now})" for name, (then, now) in shapes.items() if then != now]
    if changed:
        differs.append(f"another shape has {_some(changed)}")
    if differs:
        raise StateError(
            f"{place} is of other weights: {'; '.join(differs)}. Build the run as it was: the same network, the same adapter or "
            "none, the same version of advloss"
        )


def _some(names: Iterable[str], most: int = 2) -> str:
    found = list(names)
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


def check_finite(value: Any, place: str) -> None:
    """Raise StateError if there is NaN anywhere in a nested state, or an infinite tensor."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            check_finite(item, f"{place}/{name}")
    elif isinstance(value, (list, tuple)):
        for index, item in enumerate(value):
            check_finite(item, f"{place}/{index}")
    elif isinstance(value, Tensor) and value.is_floating_point() and not bool(value.isfinite().all()):
        raise StateError(f"{place} holds NaN or infinity in the state; use an older checkpoint")
    elif isinstance(value, float) and math.isnan(value):  # infinity may be a setting: no limit
        raise StateError(f"{place} is NaN in the state; use an older checkpoint")


def check_groups(own: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Raise StateError unless an optimizer's state has `own`'s groups of parameters, and numbers where it has numbers.

    Flags may be missing: new ones come with torch, which fills them in.
    """
    groups, others = own["param_groups"], given["param_groups"]
    if [g["params"] for g in groups] != [g["params"] for g in others]:
        raise StateError("the optimizer's parameter groups differ; build the adversary as it was")
    strange = {key for group, other in zip(groups, others) for key in other.keys() - group.keys()}
    if strange:
        raise StateError(f"the state is of another optimizer, one with {', '.join(sorted(strange))}")
    for group, other in zip(groups, others):
        for name, value in group.items():
            if not _alike(value, other.get(name)) or (name == "lr" and not math.isfinite(other[name])):
                raise StateError(f"optimizer: {name} is {value} here, {other.get(name)!r} in the state")


def check_moments(optimizer: Any, given: Mapping[str, Any]) -> None:
    """Raise StateError if a fused optimizer could not take the moments: it looks at memory, never at shapes."""
    for group, other in zip(optimizer.param_groups, given["param_groups"]):
        if not (group.get("fused") or other.get("fused")):
            continue
        moments = [given["state"].get(index) or {} for index in other["params"]]
        if len({frozenset(of_one) for of_one in moments if of_one}) > 1:
            raise StateError("optimizer: some parameters lack moments that others have; use an older checkpoint")
        for index, parameter, of_one in zip(other["params"], group["params"], moments):
            for name, value in of_one.items():
                shape = () if name == "step" else tuple(parameter.shape)
                if isinstance(value, Tensor) and tuple(value.shape) != shape:
                    found = tuple(value.shape)
                    raise StateError(f"optimizer: {name} of parameter {index} is {shape} here, {found} in the state")


def _check_optimizer(own: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Moments appear with the first step: they are compared where both have them."""
    check_groups(own, given)
    for index, moments in given["state"].items():
        mine = own["state"].get(index, moments)
        if _shapes(mine) != _shapes(moments):
            raise StateError(f"optimizer: the moments of parameter {index} differ; build the adversary as it was")


def _alike(mine: Any, theirs: Any) -> bool:
    """Whether `theirs` is a number where `mine` is one, or as many of them."""
    if isinstance(mine, tuple):
        return isinstance(theirs, (tuple, list)) and len(mine) == len(theirs) and all(map(_alike, mine, theirs))
    return _is_number(theirs) or not _is_number(mine)


def _is_number(value: Any) -> bool:
    if isinstance(value, Tensor):  # a learning rate may be one
        return value.numel() == 1
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _shapes(moments: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value.shape if isinstance(value, Tensor) else None for name, value in moments.items()}


def _digest(tree: str, tensors: Mapping[str, Tensor]) -> str:
    """Of all that a file says: a flipped bit of a weight would load and train on in silence."""
    digest = hashlib.blake2b(tree.encode(), digest_size=16)
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        if tensor.nbytes:  # both callers have contiguous tensors on the CPU
            digest.update((ctypes.c_char * tensor.nbytes).from_address(tensor.data_ptr()))
    return digest.hexdigest()


def _flat(tree: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _pack(value: Any, tensors: dict[str, Tensor], place: str) -> Any:
    """JSON for `value`: every tensor moves to `tensors`; tuples and mappings keep their types and key types."""
    if isinstance(value, Tensor):
        if place in tensors:
            raise StateError(
                f"two tensors of the state are called {place}: names hold no '/', and 1 and '1' are one name"
            )
        tensors[place] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return {"tensor": place}
    if isinstance(value, Mapping):
        items = [[_pack_key(key), _pack(item, tensors, f"{place}/{key}")] for key, item in value.items()]
        return {"mapping": items}
    if isinstance(value, (list, tuple)):
        items = [_pack(item, tensors, f"{place}/{i}") for i, item in enumerate(value)]
        return {"tuple": items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise StateError(
        f"{place} is a {type(value).__name__}; state holds numbers, strings, tensors and collections of them"
    )


def _pack_key(key: Any) -> Any:
    if isinstance(key, (int, str)) and not isinstance(key, bool):
        return key
    raise StateError(f"state has the key {key!r}; keys are strings or whole numbers")


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_unpack(item, tensors) for item in content)
    if kind == "mapping":
        return {key: _unpack(item, tensors) for key, item in content}
    raise ValueError(f"unknown entry {kind!r}")
