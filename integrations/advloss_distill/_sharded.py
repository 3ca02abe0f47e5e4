"""Weights that are spread over processes (FSDP2): a student's, gathered to be saved and spread again, and a teacher's."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from advloss import OptionError
from advloss_distill._blocks import block_names
from advloss_distill._denoiser import Denoiser
from advloss_distill._family import Family
from advloss_distill._term import Term

NO_AVERAGE = (
    "the averaged student cannot be asked while FSDP2 spreads it over processes, and consistency distillation (lcm, lcm-ladd) "
    "does: train it with DistributedDataParallel"
)


def is_sharded(accelerator: Any) -> bool:
    """Whether this accelerator shards what it prepares.

    Raises:
        OptionError: by FSDP's first version, which flattens parameters.
    """
    if str(accelerator.distributed_type).rpartition(".")[2] != "FSDP":
        return False
    if not accelerator.is_fsdp2:
        raise OptionError("FSDP version 1 flattens parameters: set fsdp_version: 2 in Accelerate's configuration")
    return True


def prepare_sharding(accelerator: Any, denoiser: Denoiser, student: nn.Module, term: Term) -> None:
    """Tell Accelerate how this student is to be sharded; call it before `accelerator.prepare`.

    Raises:
        OptionError: the term asks the averaged student.
    """
    if getattr(term, "needs_average", False):
        raise OptionError(NO_AVERAGE)
    plugin = accelerator.state.fsdp_plugin
    # Accelerate 1.15 spreads all that a state has from the main process as if it were sharded, and stops at a buffer (positions
    # of patches); every process has loaded the weights anyway
    plugin.cpu_ram_efficient_loading = False
    if plugin.transformer_cls_names_to_wrap:
        apart = {type(student.get_submodule(name)).__name__ for name in denoiser.apart}
        plugin.transformer_cls_names_to_wrap = sorted({*plugin.transformer_cls_names_to_wrap, *apart})


def shard_teacher(family: Family, teacher: nn.Module) -> None:
    """Spread a frozen teacher's weights over all processes, and gather them block by block while it runs.

    Call it in every process, with the teacher on its device, after all that copies it (`build_method`). It is in no list of
    Accelerate's then, and in no checkpoint; the student may be sharded or whole.

    Raises:
        OptionError: there is one process alone, or the teacher is trained.
    """
    if any(parameter.requires_grad for parameter in teacher.parameters()):
        raise OptionError("the teacher is not frozen: call teacher.requires_grad_(False) before it is sharded")
    if not (torch.distributed.is_initialized() and torch.distributed.get_world_size() > 1):
        raise OptionError("a teacher is sharded over several processes, and there is one: use accelerate launch")
    for name in (*family.apart, *block_names(teacher, family.blocks)):
        fully_shard(teacher.get_submodule(name))
    fully_shard(teacher)


@final
class Gathered:
    """A sharded module, optimizer or average as a part of a `TrainingState`: whole tensors on the CPU.

    Build it in every process, and use it at once: it holds what the part was then.
    """

    def __init__(self, part: Any) -> None:
        self._part, self._state = part, whole(part.state_dict())

    def state_dict(self) -> Any:
        """As the part's own would be on one process."""
        return self._state

    def load_state_dict(self, state: Any) -> None:
        """Spread whole tensors as the part's are."""
        like = self._part.state_dict()
        if hasattr(self._part, "param_groups"):  # before its first step an optimizer has no moments to compare with
            parameters = [p for group in self._part.param_groups for p in group["params"]]
            like = {
                **like,
                "state": {place: dict.fromkeys(state["state"].get(place, ()), p) for place, p in enumerate(parameters)},
            }
        self._part.load_state_dict(_spread(state, like))


def whole(tree: Any) -> Any:
    """The same with whole tensors, gathered one by one, on the CPU. Call it in every process."""
    if isinstance(tree, DTensor):
        return tree.full_tensor().detach().cpu()
    if isinstance(tree, Mapping):
        return {name: whole(value) for name, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [whole(value) for value in tree]
    return tree.detach().cpu().clone() if isinstance(tree, Tensor) else tree


@torch.no_grad()
def gathered_copy(plain: nn.Module, sharded: nn.Module, averages: Sequence[Tensor]) -> nn.Module:
    """A copy of `plain` with the weights of its sharded twin, those that are trained averaged. Call it in every process."""
    module = copy.deepcopy(plain)
    module.load_state_dict(whole(sharded.state_dict()))
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter, average in zip(trained, averages, strict=True):
        parameter.copy_(whole(average))
    return module


def _spread(tree: Any, like: Any) -> Any:
    """`tree` with tensors spread as those in `like` are, where shapes are the same."""
    if isinstance(tree, Mapping):
        return {
            name: _spread(value, like.get(name)) if isinstance(like, Mapping) else value for name, value in tree.items()
        }
    if isinstance(tree, (list, tuple)):
        return (
            [_spread(value, other) for value, other in zip(tree, like, strict=True)] if isinstance(like, list) else tree
        )
    if isinstance(like, DTensor) and isinstance(tree, Tensor) and tree.shape == like.shape:
        return distribute_tensor(tree.to(like.device), like.device_mesh, like.placements)
    return tree
