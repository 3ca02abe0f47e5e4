"""Networks as files: safetensors that say which phase they come from, published weights, ONNX."""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import extract_model_from_parallel
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from advloss import OptionError, StateError

FORMAT = "advloss-superres-1"


def save_weights(model: nn.Module, path: Path | str, *, phase: str, **about: Any) -> None:
    """Write a network's weights to a safetensors file, under another name first.

    Args:
        path: its folder is made.
        phase: that the weights come from: ``"psnr"``, ``"adversarial"``, ``"interpolated"``.
        about: what else to know, as numbers, strings and lists: architecture, scale.
    """
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in model.state_dict().items()}
    metadata = {"format": FORMAT, "phase": phase, "about": json.dumps(about)}
    _replace(path, lambda part: save_file(tensors, part, metadata=metadata))


def load_weights(model: nn.Module, path: Path | str) -> str:
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


def read_weights(path: Path | str) -> tuple[dict[str, Tensor], dict[str, Any]]:
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
    if not isinstance(alpha, (int, float)) or not 0 <= alpha <= 1:
        raise OptionError(f"alpha={alpha!r}: give a number from 0 (the PSNR phase) to 1 (the adversarial one)")
    if {n: t.shape for n, t in first.items()} != {n: t.shape for n, t in second.items()}:
        raise OptionError("the two sets of weights differ in names or shapes; take those of one network")
    return {
        name: one.lerp(second[name], alpha) if one.is_floating_point() else one.clone() for name, one in first.items()
    }


class _Published(nn.Module):
    """A network of images in [0, 1], for images in [-1, 1] of any size. One of grey images is given each channel alone."""

    def __init__(self, described: Any) -> None:
        super().__init__()
        self.network, self.scale = described.model, described.scale
        self.multiple, self._padding = described.size_requirements.multiple_of, described.size_requirements.get_padding
        self._grey = described.input_channels == 1

    def forward(self, images: Tensor) -> Tensor:
        count, channels, height, width = images.shape
        given = images.reshape(-1, 1, height, width) if self._grey else images
        right, bottom = self._padding(width, height)
        if right or bottom:
            given = functional.pad(given, (0, right, 0, bottom), mode="replicate")
        made: Tensor = self.network((given + 1) / 2) * 2 - 1
        made = made[..., : height * self.scale, : width * self.scale]
        return made.reshape(count, channels, *made.shape[-2:]) if self._grey else made


def load_published(path: Path | str) -> nn.Module:
    """A published super-resolution or restoration network by the package `spandrel`, which knows it from its weights.

    Pickled files (.pth) are read with torch's `weights_only`. The network takes and gives images in [-1, 1], can be trained
    on, and has its `scale`. Sides that it does not divide are padded and cut again. A network of grey images makes each
    channel on its own: of colours, too.

    Raises:
        OptionError: the package is missing, or the file holds nothing that it knows, or a network of other channels.
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
    channels = described.input_channels, described.output_channels
    if channels not in ((1, 1), (3, 3)):
        raise OptionError(
            f"{path} makes {channels[1]} channels of {channels[0]}; give a network of 3, or of grey images"
        )
    return _Published(described)


def export_onnx(model: nn.Module, path: Path | str, *, channels: int = 3, side: int = 32) -> None:
    """Write the network alone as ONNX, for inputs ``low`` `(N, channels, H, W)`; the output is ``high``.

    H and W are free; where a network takes only multiples (of a window's side, of its downsampling), they are multiples of
    the smallest power of two that it takes, which is found by trying.

    Args:
        path: its folder is made.
        side: of the input that it is traced with, at least.

    Raises:
        OptionError: the packages are missing, or torch cannot export this network.
    """
    for package in ("onnx", "onnxscript"):
        if importlib.util.find_spec(package) is None:
            raise OptionError(f"ONNX needs the package {package}: pip install 'advloss[superres,onnx]'")
    # without the autocast that Accelerate has put around the forward: a file is in full precision
    model = extract_model_from_parallel(copy.deepcopy(model), keep_fp32_wrapper=False).eval()
    try:
        multiple, example = _example(model, channels, side)
        height, width = (multiple * torch.export.Dim(name) for name in ("height", "width"))
        sizes = {0: torch.export.Dim("batch"), 2: height, 3: width}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                model,
                (example,),
                dynamo=True,
                dynamic_shapes=(sizes,),
                input_names=["low"],
                output_names=["high"],
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        cause = str(error.__cause__ or error).strip().partition("\n")[0]
        raise OptionError(
            f"torch cannot export this {type(model).__name__} to ONNX for images of all sizes ({cause}); torch.jit.trace "
            "can for one size"
        ) from error
    assert program is not None
    _replace(path, program.save)


@torch.no_grad()
def _example(model: nn.Module, channels: int, side: int) -> tuple[int, Tensor]:
    """The smallest power of two that sides may be multiples of, and images of two such sides."""
    own, why = getattr(model, "multiple", 1), None
    for multiple in (m for m in (1, 2, 4, 8, 16, 32, 64) if m % own == 0):
        units = max(2, -(-side // multiple))
        images = torch.zeros(2, channels, units * multiple, (units + 1) * multiple, device=_device(model))
        try:
            made = model(images)
        except Exception as error:  # whatever a network raises of sides that it cannot take
            why = error
            continue
        if made.shape[2] % images.shape[2] == 0 and made.shape[2] * images.shape[3] == made.shape[3] * images.shape[2]:
            return multiple, images
    raise OptionError(
        f"{type(model).__name__} takes no images with sides that are multiples of 64 and less ({why})"
    ) from why


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _replace(path: Path | str, write: Any) -> None:
    """Write under another name, then rename."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        write(part)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
