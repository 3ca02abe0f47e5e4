"""Fitting an adversary into a script that uses Accelerate, without becoming one of its models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from advloss import _state
from advloss._runtime import Accelerated
from advloss.errors import StateError

if TYPE_CHECKING:
    from advloss._adversary import Adversary

_attached: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def attach(adversary: Adversary, accelerator: Any) -> Accelerated:
    """Start all processes from the main one's state, and hook into `save_state` and `load_state`.

    The n-th adversary of an accelerator is saved as ``adversary.safetensors``, ``adversary_1.safetensors``, ...
    Only the process that writes has to be there, so a script may call `save_state` on it alone. Called in the others,
    in the middle of an accumulation, it adds what each of them has gathered: ``adversary.process_1.safetensors``, ...
    """
    number = _attached.get(accelerator, 0)
    _attached[accelerator] = number + 1
    name = f"adversary_{number}" if number else "adversary"
    gathered = f"{name}.process_{accelerator.process_index}.safetensors"

    def save(models: Any, weights: Any, output_dir: str) -> None:
        state = adversary.state_dict()
        if _writes(accelerator):
            _state.save_state(state, Path(output_dir) / f"{name}.safetensors")
        elif state["update"]["count"]:
            parts = {"counters": state["counters"], "update": _gathered(state["update"])}
            _state.save_state(parts, Path(output_dir) / gathered)

    def load(models: Any, input_dir: str) -> None:
        _check_pickles(Path(input_dir))
        state = _state.load_state(Path(input_dir) / f"{name}.safetensors")
        if state["update"]["count"] and not _writes(accelerator):
            state = _with_own(state, Path(input_dir) / gathered)
        adversary.load_state_dict(state)

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)
    if accelerator.num_processes > 1:
        _broadcast(adversary)
    return Accelerated(accelerator)


def _writes(accelerator: Any) -> bool:
    everywhere = accelerator.project_configuration.save_on_each_node
    return bool(accelerator.is_local_main_process if everywhere else accelerator.is_main_process)


def _gathered(update: dict[str, Any]) -> dict[str, Any]:
    """What an unfinished accumulation holds; it differs between processes until their mean is taken."""
    return {name: update[name] for name in ("gradients", "buffers", "logits", "finite")}


def _with_own(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """The main process's state with what this one had gathered."""
    own = _state.load_state(path) if path.is_file() else None
    if own is None or own["counters"] != state["counters"]:
        raise StateError(
            f"{path.parent} was saved in the middle of an accumulation, and not in every process: {path.name} is missing "
            "or of another step. Call save_state in every process, or between two steps"
        )
    return {**state, "update": {**state["update"], **own["update"]}}


def _check_pickles(folder: Path) -> None:
    """Look at the files that Accelerate unpickles before any state changes.

    It reads them with `weights_only`, and so runs nothing that they say; but it would find one of them damaged or
    hostile in the middle of loading, and leaves out random states that it cannot read without a word.
    """
    from accelerate.utils import load

    for path in sorted((*folder.glob("*.bin"), *folder.glob("random_states_*.pkl"))):
        try:
            load(str(path), mmap=True)  # tensors stay on the disk
        except Exception as error:
            raise StateError(f"{path} is damaged, or holds more than tensors and numbers ({error})") from error


@torch.no_grad()
def _broadcast(adversary: Adversary) -> None:
    from accelerate.utils import broadcast, broadcast_object_list

    for module in (adversary.discriminator, adversary._stateful, *adversary.augmentations.values()):
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.copy_(broadcast(tensor.detach().clone()))
    seed = [adversary._seed]
    broadcast_object_list(seed)
    adversary._seed = seed[0]
