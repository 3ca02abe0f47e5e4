"""Fitting an adversary into a script that uses Accelerate, without becoming one of its models."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from safetensors import safe_open

from advloss import _state
from advloss._runtime import Accelerated
from advloss.errors import StateError

if TYPE_CHECKING:
    from advloss._adversary import Adversary

_carriers: WeakKeyDictionary[Any, ReferenceType[_Carrier]] = WeakKeyDictionary()


def attach(adversary: Adversary, accelerator: Any) -> Accelerated:
    """Start all processes from the main one's state, and let `save_state` and `load_state` carry the adversary."""
    found = _carriers.get(accelerator)
    carrier = (found and found()) or _Carrier(accelerator)
    carrier.take_on(adversary)
    if accelerator.num_processes > 1:
        _broadcast(adversary)
    return Accelerated(accelerator)


class _Carrier:
    """Hooks of an accelerator, which hold the adversaries that were prepared with it.

    The n-th is saved as ``adversary.safetensors``, ``adversary_1.safetensors``, ...
    Only the process that writes has to be there, so a script may call `save_state` on it alone. Called in the others,
    in the middle of an accumulation, it adds what each of them has gathered: ``adversary.process_1.safetensors``, ...
    """

    def __init__(self, accelerator: Any) -> None:
        self._aboard: list[ReferenceType[Adversary]] = []  # one that the script has dropped is saved no more
        self._accelerator = accelerator
        accelerator.register_save_state_pre_hook(self.save)
        accelerator.register_load_state_pre_hook(self.load)
        _carriers[accelerator] = ref(self)

    @property
    def adversaries(self) -> list[Adversary]:
        """In the order of their preparation."""
        return [adversary for reference in self._aboard if (adversary := reference()) is not None]

    def take_on(self, adversary: Adversary) -> None:
        """Carry it from now on."""
        if adversary not in self.adversaries:
            self._aboard.append(ref(adversary))

    def save(self, models: Any, weights: Any, output_dir: str) -> None:
        for adversary, file, gathered in self._files(Path(output_dir)):
            state = adversary.state_dict()
            if _writes(self._accelerator):
                _state.save_state(state, file)
            elif own := _state.gathered_by(state):
                _state.save_state(own, gathered)

    def load(self, models: Any, input_dir: str) -> None:
        """All files are looked at before any adversary changes; either all change, or none."""
        _check_pickles(Path(input_dir))
        _check_tensors(Path(input_dir))
        self._check_count(Path(input_dir))
        states = []
        for _, file, gathered in self._files(Path(input_dir)):
            state = _state.load_state(file)
            if state["update"]["count"] and not _writes(self._accelerator):
                state = _with_own(state, gathered)
            states.append(state)
        with ExitStack() as back:
            for adversary, state in zip(self.adversaries, states):
                before = copy.deepcopy(adversary.state_dict())
                adversary.load_state_dict(state)
                back.callback(adversary.load_state_dict, before)
            back.pop_all()

    def _check_count(self, folder: Path) -> None:
        saved = [path for path in folder.glob("adversary*.safetensors") if ".process_" not in path.name]
        if len(saved) > len(self.adversaries):
            raise StateError(
                f"{folder} holds {len(saved)} adversaries, this script has prepared {len(self.adversaries)}: which is whose nobody "
                "knows. Prepare as many, in the same order (a notebook's cell that was run twice has prepared one twice)"
            )

    def _files(self, folder: Path) -> Iterator[tuple[Adversary, Path, Path]]:
        """Each adversary with its file, and the one for what this process has gathered."""
        process = self._accelerator.process_index
        for number, adversary in enumerate(self.adversaries):
            name = f"adversary_{number}" if number else "adversary"
            yield adversary, folder / f"{name}.safetensors", folder / f"{name}.process_{process}.safetensors"


def _writes(accelerator: Any) -> bool:
    everywhere = accelerator.project_configuration.save_on_each_node
    return bool(accelerator.is_local_main_process if everywhere else accelerator.is_main_process)


def _with_own(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """The main process's state with what this one had gathered."""
    own = _state.load_state(path) if path.is_file() else None
    if own is None or own["counters"] != state["counters"]:
        raise StateError(
            f"{path.parent} was saved in the middle of an accumulation, and not in every process: {path.name} is missing "
            "or of another step. Call save_state in every process, or between two steps"
        )
    return dict(_state.with_gathered(state, own))


def _check_pickles(folder: Path) -> None:
    """Look at the files that Accelerate unpickles before any state changes.

    It reads them with `weights_only`, and so runs nothing that they say; but it would find one of them damaged or
    hostile in the middle of loading, and leaves out random states that it cannot read without a word.
    """
    from accelerate.utils import load

    for path in sorted((*folder.glob("*.bin"), *folder.glob("*.pt"), *folder.glob("random_states_*.pkl"))):
        try:
            load(str(path), mmap=True)  # tensors stay on the disk
        except Exception as error:
            raise StateError(f"{path} is damaged, or holds more than tensors and numbers ({error})") from error


def _check_tensors(folder: Path) -> None:
    """Open the files of the script's models: a truncated one would stop the loading in the middle."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt"):
                pass
        except Exception as error:
            raise StateError(f"{path} is damaged ({error}); use an older checkpoint") from error


@torch.no_grad()
def _broadcast(adversary: Adversary) -> None:
    """The main process's weights, buffers, moments and seed for all.

    Raises:
        StateError: the processes' adversaries have not taken the same steps, so that more than weights differs.
    """
    from accelerate.utils import broadcast, broadcast_object_list, gather_object

    counters = {name: count for name, count in adversary.state_dict()["counters"].items() if name != "seed"}
    found = gather_object([counters])
    if any(other != counters for other in found):
        raise StateError(
            f"prepare: the processes' adversaries have taken different steps ({', '.join(map(str, found))}): load a state in "
            "all of them or in none, or after prepare"
        )
    modules = (adversary.discriminator, adversary._stateful, *adversary.augmentations.values())
    moments = adversary._update.optimizer.state.values()
    tensors = [tensor for module in modules for tensor in (*module.parameters(), *module.buffers())]
    for tensor in tensors + [m for of_one in moments for m in of_one.values() if isinstance(m, torch.Tensor)]:
        tensor.copy_(broadcast(tensor.detach().clone()))
    seed = [adversary._players.seed]
    broadcast_object_list(seed)
    adversary._players.seed = seed[0]
