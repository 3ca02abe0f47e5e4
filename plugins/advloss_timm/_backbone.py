"""Build a timm model by name, with its weights, and say what to do when that fails."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from advloss import OptionError, PluginError

_HUB = ("hf-hub:", "hf_hub:", "local-dir:")


def load_backbone(name: str, *, pretrained: bool, checkpoint_path: str | Path | None, **options: Any) -> nn.Module:
    """``timm.create_model(name, **options)``, with weights from timm's own source, from a file, or random ones.

    Args:
        name: a model of timm, with or without a tag (``"vit_small_patch16_224.dino"``), or ``"hf-hub:owner/model"``.
        pretrained: load the weights that timm knows for this name.
        checkpoint_path: load them from this file instead (safetensors, or a PyTorch file of tensors alone); timm's
            own conversions (renamed keys, resampled position embeddings) apply to it.

    Raises:
        OptionError: timm has no such model, or it does not take these options.
        PluginError: the weights cannot be had.
    """
    _check_name(name)
    weights = None if checkpoint_path is None else _read(Path(checkpoint_path))
    if weights is not None:
        options["pretrained_cfg_overlay"] = {"state_dict": dict(weights)}
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained or weights is not None, **options)
    except (TypeError, AssertionError) as error:
        options.pop("pretrained_cfg_overlay", None)
        raise OptionError(f"timm cannot build backbone={name!r} with {options}: {error}. Choose another one") from error
    except Exception as error:  # a download, a hub, a file: each library raises its own kind
        if weights is not None:
            raise PluginError(f"{checkpoint_path} does not hold the weights of {name!r}: {error}") from error
        if not pretrained:
            raise OptionError(f"timm cannot build backbone={name!r}: {error}") from error
        raise PluginError(
            f"the pretrained weights of {name!r} could not be loaded: {type(error).__name__}: {error} - check the network, "
            "or give checkpoint_path= a local file; pretrained=False takes random weights, good enough for a test only"
        ) from error
    if weights is not None:
        _check_loaded(model, weights, name, checkpoint_path)
        for attribute in ("pretrained_cfg", "default_cfg"):  # timm keeps what it was given: not the weights twice
            getattr(model, attribute, {}).pop("state_dict", None)
    return model


def normalization(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation `(3,)` that the backbone expects of images in [0, 1]."""
    config = timm.data.resolve_model_data_config(model)
    return torch.tensor(config["mean"]), torch.tensor(config["std"])


def fixed_size(name: str) -> bool:
    """Whether the backbone is built for one image size, which then is an option of its own."""
    _check_name(name)
    config = None if name.startswith(_HUB) else timm.get_pretrained_cfg(name)
    return bool(config is not None and config.fixed_input_size)


def _check_name(name: object) -> None:
    if not isinstance(name, str):
        raise OptionError(f"backbone={name!r}; give the name of a timm model")
    if name.startswith(_HUB):
        return
    try:
        known = timm.is_model(name.split(".")[0]) and timm.get_pretrained_cfg(name) is not None
    except RuntimeError:  # a tag that this model does not have
        known = False
    if not known:
        names = [*timm.list_models(pretrained=True), *timm.list_models()]
        near = difflib.get_close_matches(name, names, n=4, cutoff=0.5)
        hint = f"nearest: {', '.join(near)}" if near else "timm.list_models() lists all"
        raise OptionError(f"backbone={name!r}: timm {timm.__version__} has no such model; {hint}")


def _read(path: Path) -> Mapping[str, Tensor]:
    try:
        weights = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except Exception as error:
        raise PluginError(f"checkpoint_path={str(path)!r} cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise PluginError(f"checkpoint_path={str(path)!r} holds no plain mapping from names to tensors")
    return weights


def _check_loaded(model: nn.Module, weights: Mapping[str, Tensor], name: str, path: object) -> None:
    """timm loads without strictness once it drops a classifier: a file of another model would pass unseen."""
    held = {(tensor.numel(), tensor.double().sum().item()) for tensor in weights.values()}
    parameters = [p.detach() for p in model.parameters() if p.ndim > 1]
    found = sum((p.numel(), p.double().sum().item()) in held for p in parameters)
    if 2 * found < len(parameters):
        raise PluginError(f"{path} does not hold the weights of {name!r}: {found} of {len(parameters)} tensors fit")
