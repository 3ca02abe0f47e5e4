"""Networks as files: safetensors that say which phase they come from, published weights, ONNX."""

from __future__ import annotations

import importlib.util
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from advloss import OptionError, StateError

FORMAT = "advloss-superres-1"


def save_weights(model: nn.Module, path: Path, *, phase: str, **about: Any) -> None:
    """Write a network's weights to a safetensors file, under another name first.

    Args:
        path: its folder is made.
        phase: that the weights come from: ``"psnr"``, ``"adversarial"``, ``"interpolated"``.
        about: what else to know, as numbers, strings and lists: architecture, scale.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    metadata = {"format": FORMAT, "phase": phase, "about": json.dumps(about)}
    _replace(path, lambda part: save_file(tensors, part, metadata=metadata))


def load_weights(model: nn.Module, path: Path) -> str:
    """Load what `save_weights` wrote, and return the phase: for ``PhasedTraining(follows=...)``.

    Raises:
        StateError: the file is missing, damaged, of another kind or of another network. Nothing has changed.
    """
    tensors, metadata = read_weights(path)
    expected = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if expected != found:
        differing = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
        raise StateError(
            f"{path} holds another network: {differing[0]} and {len(differing) - 1} more are missing or of another "
            f"shape. It was saved with {metadata['about']}"
        )
    model.load_state_dict(tensors)
    return metadata["phase"]


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a file by `save_weights`, and its ``phase`` and ``about``.

    Raises:
        StateError: the file is missing, damaged, of another kind, or holds NaN or infinity.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise StateError(f"{path} cannot be read ({error})") from error
    if metadata.get("format") != FORMAT:
        raise StateError(f"{path} was not written by save_weights; for published weights see load_published")
    for name, tensor in tensors.items():
        if not tensor.isfinite().all():
            raise StateError(f"{path}: {name} holds NaN or infinity")
    return tensors, {"phase": metadata["phase"], "about": json.loads(metadata["about"])}


def interpolate_weights(first: Mapping[str, Tensor], second: Mapping[str, Tensor], alpha: float) -> dict[str, Tensor]:
    """Network interpolation (arXiv:1809.00219, section 3.4): ``(1 - alpha) first + alpha second``, tensor by tensor.

    Args:
        first: of the PSNR phase.
        second: of the adversarial phase that began there.
        alpha: 0 gives the first, 1 the second.

    Raises:
        OptionError: `alpha` outside [0, 1], or weights of two architectures.
    """
    if not 0 <= alpha <= 1:
        raise OptionError(f"alpha={alpha!r}: give a number from 0 (the PSNR phase) to 1 (the adversarial one)")
    if {n: t.shape for n, t in first.items()} != {n: t.shape for n, t in second.items()}:
        raise OptionError("the two sets of weights differ in names or shapes; take those of one network")
    return {
        name: one.lerp(second[name], alpha) if one.is_floating_point() else one.clone() for name, one in first.items()
    }


class _Published(nn.Module):
    """A network of images in [0, 1], for images in [-1, 1]."""

    def __init__(self, network: nn.Module, scale: int) -> None:
        super().__init__()
        self.network, self.scale = network, scale

    def forward(self, images: Tensor) -> Tensor:
        made: Tensor = self.network((images + 1) / 2)
        return made * 2 - 1


def load_published(path: Path) -> nn.Module:
    """A published super-resolution or restoration network by the package `spandrel`, which knows it from its weights.

    Pickled files (.pth) are read with torch's `weights_only`. The network takes and gives images in [-1, 1], can be trained
    on, and has its `scale`.

    Raises:
        OptionError: the package is missing, or the file holds nothing that it knows.
    """
    if importlib.util.find_spec("spandrel") is None:
        raise OptionError("published weights need the package spandrel: pip install 'advloss[superres,spandrel]'")
    import spandrel

    try:
        safe = Path(path).suffix == ".safetensors"
        tensors = load_file(path) if safe else torch.load(path, map_location="cpu", weights_only=True)
        described = spandrel.ModelLoader().load_from_state_dict(tensors)
    except Exception as error:  # unreadable, refused by weights_only, or unknown to spandrel
        raise OptionError(f"{path} holds no network that spandrel knows ({type(error).__name__}: {error})") from error
    if not isinstance(described, spandrel.ImageModelDescriptor):
        raise OptionError(f"{path} holds a {described.architecture.name}, which does not map one image to one image")
    return _Published(described.model, described.scale)


def export_onnx(model: nn.Module, path: Path, *, channels: int = 3, side: int = 32) -> None:
    """Write the network alone as ONNX, for inputs ``low`` `(N, channels, H, W)` of any size; the output is ``high``.

    Args:
        side: of the input that it is traced with.

    Raises:
        OptionError: the packages are missing.
    """
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise OptionError(f"ONNX needs the package {package}: pip install 'advloss[superres,onnx]'")
    example = torch.zeros(2, channels, side, side + 1, device=_device(model))
    sizes = {0: torch.export.Dim("batch"), 2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
    was_training = model.training
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model.eval(),
                (example,),
                dynamo=True,
                dynamic_shapes=(sizes,),
                input_names=["low"],
                output_names=["high"],
                verbose=False,
            )
    finally:
        model.train(was_training)
    assert program is not None
    _replace(path, program.save)


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _replace(path: Path, write: Any) -> None:
    """Write under another name, then rename."""
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
