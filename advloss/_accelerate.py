"""Fitting an adversary into a script that uses Accelerate, without becoming one of its models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch

from advloss import _state
from advloss._runtime import Accelerated

if TYPE_CHECKING:
    from advloss._adversary import Adversary

_attached: WeakKeyDictionary[Any, int] = WeakKeyDictionary()


def attach(adversary: Adversary, accelerator: Any) -> Accelerated:
    """Start all processes from the main one's state, and hook into `save_state` and `load_state`.

    The n-th adversary of an accelerator is saved as ``adversary.safetensors``, ``adversary_1.safetensors``, ...
    Only the process that writes does anything on saving, so a script may call `save_state` there alone.
    """
    number = _attached.get(accelerator, 0)
    _attached[accelerator] = number + 1
    name = f"adversary_{number}.safetensors" if number else "adversary.safetensors"

    def save(models: Any, weights: Any, output_dir: str) -> None:
        if _writes(accelerator):
            _state.save_state(adversary.state_dict(), Path(output_dir) / name)

    def load(models: Any, input_dir: str) -> None:
        adversary.load_state_dict(_state.load_state(Path(input_dir) / name))

    accelerator.register_save_state_pre_hook(save)
    accelerator.register_load_state_pre_hook(load)
    if accelerator.num_processes > 1:
        _broadcast(adversary)
    return Accelerated(accelerator)


def _writes(accelerator: Any) -> bool:
    everywhere = accelerator.project_configuration.save_on_each_node
    return bool(accelerator.is_local_main_process if everywhere else accelerator.is_main_process)


@torch.no_grad()
def _broadcast(adversary: Adversary) -> None:
    from accelerate.utils import broadcast, broadcast_object_list

    for module in (adversary.discriminator, adversary._stateful, *adversary.augmentations.values()):
        for tensor in (*module.parameters(), *module.buffers()):
            tensor.copy_(broadcast(tensor.detach().clone()))
    seed = [adversary._seed]
    broadcast_object_list(seed)
    adversary._seed = seed[0]
