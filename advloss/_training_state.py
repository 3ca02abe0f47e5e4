"""Everything that a run's future depends on, saved and taken up as a whole."""

from __future__ import annotations

import copy
import random
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from advloss._adversary import Adversary
from advloss._state import (
    check_finite,
    check_groups,
    check_moments,
    check_names,
    gathered_by,
    load_state,
    save_state,
    with_gathered,
)
from advloss.errors import NonFiniteError, OptionError, StateError


class Stateful(Protocol):
    """A module, an optimizer, a schedule, an adversary, ..."""

    def state_dict(self) -> Any:
        """What it is now."""

    def load_state_dict(self, state: Any) -> Any:
        """Be what `state_dict` returned."""


class TrainingState:
    """The parts of a run, by name: safetensors and JSON, no pickle; random states and the scaler come along.

        state = TrainingState({"model": model, "optimizer": optimizer, "adversary": adversary}, {"batches": batches})
        with checkpoints.write(step) as folder:
            state.save(folder, step=step)
        step = state.load(checkpoints.newest())["step"]

    Args:
        shared: what is alike in all processes; the main one writes it. Networks are given unwrapped.
        own: what every process has for itself, such as the position in its data.
        accelerator: an `accelerate.Accelerator`, where there is one.
    """

    def __init__(
        self, shared: Mapping[str, Stateful], own: Mapping[str, Stateful] | None = None, *, accelerator: Any = None
    ) -> None:
        scaler = getattr(accelerator, "scaler", None)
        own = dict(own or {})
        used = {"random", *(() if scaler is None else ("scaler",))}
        if clash := (shared.keys() & own.keys()) | ((shared.keys() | own.keys()) & used):
            raise OptionError(
                f"parts are called {', '.join(sorted(clash))} twice, or as parts are that come along by themselves"
            )
        self._shared: dict[str, Any] = {**shared, **({} if scaler is None else {"scaler": scaler})}
        self._own: dict[str, Any] = {**own, "random": RandomState(getattr(accelerator, "device", None))}
        self._masks = {name: _infinite(part) for name, part in {**shared, **own}.items()}
        self._rank = 0 if accelerator is None else int(accelerator.process_index)
        self._world = 1 if accelerator is None else int(accelerator.num_processes)

    def save(self, folder: Path, **counters: int) -> None:
        """Write this process's files; `counters` are returned by `load`.

        Raises:
            NonFiniteError: a part holds NaN or infinity, which `load` would refuse. Nothing was written: inside
                `Checkpoints.write` older checkpoints stay.
        """
        folder = Path(folder)
        own = {name: part.state_dict() for name, part in self._own.items()}
        adversaries = {name: part for name, part in self._shared.items() if isinstance(part, Adversary)}
        shared = {name: part.state_dict() for name, part in self._shared.items()} if self._rank == 0 else {}
        gathered = {name: gathered_by(part.state_dict()) for name, part in adversaries.items()} if self._rank else {}
        for name, part in {**self._shared, **self._own}.items():
            if not isinstance(part, Adversary):  # it looks after itself
                _refuse_non_finite(name, self._without_masks(name, shared.get(name, own.get(name))))
        save_state(
            {"parts": own, "counters": counters, "gathered": gathered}, folder / f"process_{self._rank}.safetensors"
        )
        if self._rank == 0:
            save_state({"parts": shared, "processes": self._world}, folder / "state.safetensors")

    def _without_masks(self, name: str, state: Any) -> Any:
        masks = self._masks.get(name)
        return {n: v for n, v in state.items() if n not in masks or not torch.equal(v, masks[n])} if masks else state

    def load(self, folder: Path) -> dict[str, int]:
        """Take up all parts, or none. Meanwhile there is a second copy of them in memory.

        Raises:
            StateError: files are missing or damaged, or are of a run built otherwise. Nothing has changed.
        """
        folder = Path(folder)
        shared = load_state(folder / "state.safetensors")
        processes = shared.get("processes") if isinstance(shared, Mapping) else None
        if processes != self._world:
            raise StateError(f"{folder} was saved by {processes} processes, here are {self._world}; start as many")
        own = load_state(folder / f"process_{self._rank}.safetensors")
        parts, states = {**self._shared, **self._own}, _states(shared, folder) | _states(own, folder)
        if parts.keys() != states.keys():
            names = ", ".join(sorted(map(str, parts.keys() ^ states.keys())))
            raise StateError(f"only one of this run and {folder} has: {names}; build the run as it was")
        if not isinstance(own.get("counters"), Mapping):
            raise StateError(f"{folder} holds no counters; it was saved by something else")
        states |= {name: with_gathered(states[name], of_one) for name, of_one in own.get("gathered", {}).items()}
        for name, part in parts.items():
            if not isinstance(part, Adversary):  # it looks for itself: an unfinished accumulation may hold NaN
                check_finite(self._without_masks(name, states[name]), f"{folder}: {name}")
        for name, part in self._shared.items():
            check_names(part.state_dict(), states[name], f"{folder}: {name}")
        before = {name: copy.deepcopy(part.state_dict()) for name, part in parts.items()}
        begun = []
        try:
            for name, part in parts.items():
                begun.append(name)
                if hasattr(part, "param_groups"):
                    check_groups(part.state_dict(), states[name])
                    check_moments(part, states[name])
                part.load_state_dict(states[name])
        except Exception as error:
            for name in begun:
                parts[name].load_state_dict(before[name])
            raise StateError(f"{folder}: {begun[-1]} does not fit this run: {error}") from error
        return dict(own["counters"])


def _infinite(part: Any) -> dict[str, torch.Tensor]:
    """Buffers of a module that hold infinity from the start, such as a mask of attention, by name."""
    buffers = part.named_buffers() if isinstance(part, nn.Module) else ()
    return {
        name: buffer.clone()
        for name, buffer in buffers
        if buffer.is_floating_point() and not bool(buffer.isfinite().all())
    }


def _refuse_non_finite(name: str, state: Any) -> None:
    try:
        check_finite(state, name)
    except StateError as error:
        where = str(error).partition(" ")[0]
        raise NonFiniteError(
            f"{where} holds NaN or infinity: the training has diverged. This is not saved; older checkpoints stay as they are"
        ) from None


class RandomState:
    """The global random generators of this process: Python's, NumPy's where it is used, torch's on CPU and `device`."""

    def __init__(self, device: torch.device | None = None) -> None:
        self._device = device if device is not None and device.type != "cpu" else None

    def state_dict(self) -> dict[str, Any]:
        """All their states."""
        state = {"python": random.getstate(), "torch": torch.get_rng_state()}
        if "numpy" in sys.modules:
            kind, keys, *rest = sys.modules["numpy"].random.get_state()
            state["numpy"] = (kind, keys.tolist(), *rest)
        if self._device is not None:
            state["device"] = torch.get_device_module(self._device).get_rng_state(self._device)
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up what `state_dict` returned."""
        random.setstate(state["python"])
        torch.set_rng_state(state["torch"])
        if "numpy" in sys.modules and "numpy" in state:
            sys.modules["numpy"].random.set_state(state["numpy"])
        if self._device is not None and "device" in state:
            torch.get_device_module(self._device).set_rng_state(state["device"], self._device)


def _states(content: Any, folder: Path) -> dict[str, Any]:
    if not isinstance(content, Mapping) or not isinstance(content.get("parts"), dict):
        raise StateError(f"{folder} holds no state of a training; it was saved by something else")
    return content["parts"]
