"""Students that train an adapter in place of their weights (LoRA, arXiv:2106.09685), through peft."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from advloss import OptionError, PluginError

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


def add_lora(student: nn.Module, rank: int = 64, alpha: int | None = None, targets: Sequence[str] = ATTENTION) -> None:
    """Freeze `student` and put a trainable adapter beside its layers; it begins as the student was.

    Args:
        rank: of the adapter's matrices.
        alpha: the adapter is scaled by ``alpha / rank``; default `rank`.
        targets: ends of the names of the linear layers.

    Raises:
        PluginError: peft is not installed.
        OptionError: no layer has such a name, or the rank is none.
    """
    if rank < 1:
        raise OptionError(
            f"rank={rank} is no rank of an adapter: give a whole number, at least 1 (--lora; 0 trains all weights)"
        )
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise PluginError("adapters need peft: pip install 'advloss[lora]'") from error
    student.requires_grad_(False)
    config = LoraConfig(r=rank, lora_alpha=rank if alpha is None else alpha, target_modules=list(targets))
    try:
        inject_adapter_in_model(config, student)
    except ValueError as error:
        raise OptionError(f"no layer of the student ends in one of {', '.join(targets)}: {error}") from error


def has_lora(network: nn.Module) -> bool:
    """Whether `add_lora` was here."""
    return any(".lora_A." in name for name, _ in network.named_parameters())


def lora_state(network: nn.Module) -> dict[str, Any]:
    """The adapter's weights by their names in diffusers' and peft's format."""
    from peft import get_peft_model_state_dict

    return get_peft_model_state_dict(network)


def merge_lora(network: nn.Module) -> nn.Module:
    """Add the adapter to the weights, in place; returns the network without it."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(network.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge(safe_merge=True)
            parent, _, child = name.rpartition(".")
            setattr(network.get_submodule(parent), child, layer.get_base_layer())
    for attribute in ("peft_config", "_hf_peft_config_loaded"):
        vars(network).pop(attribute, None)
    return network
