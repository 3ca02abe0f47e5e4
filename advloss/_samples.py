"""Samples of a generator as files, and whether they are copies of each other."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from advloss.errors import LogError

if TYPE_CHECKING:
    from torch import Tensor

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
MOST, NEAR, LEAST_VALUES = 2500, 0.1, 32


def look_at(path: Path) -> tuple[dict[str, float], list[str]]:
    """Count samples, and those that differ from all earlier ones: that are farther from each than a tenth of the mean
    distance of two samples. Of many the first 2,500 are looked at.

    Args:
        path: a folder of pictures of one size, or an array ``.npy`` or tensor ``.safetensors`` `(N, ...)`.

    Returns:
        ``count`` and, for samples of 32 values or more (in the plane, neighbours are always near), ``distinct``;
        and notes on what was passed over.

    Raises:
        LogError: no such file, nothing that can be read, or samples of different sizes.
    """
    import torch

    notes: list[str] = []
    samples = _folder(path, notes) if path.is_dir() else _array(path)
    samples = samples[:MOST].flatten(1).float()
    if len(samples) < 2 or not bool(samples.isfinite().all()):
        raise LogError(f"{path} holds {len(samples)} samples, or NaN; give two finite ones or more")
    found = {"count": float(len(samples))}
    if samples.shape[1] >= LEAST_VALUES:
        distances = torch.cdist(samples, samples)
        mean = distances.sum() / (len(samples) * (len(samples) - 1))
        rounding = 2e-3 * samples.norm(dim=1).mean()  # of distances by matrix products
        copies = (distances <= torch.maximum(NEAR * mean, rounding)).tril(-1).any(1)
        found["distinct"] = float((~copies).sum())
    return found, notes


def _folder(path: Path, notes: list[str]) -> Tensor:
    import torch

    files = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES)
    if not files:
        raise LogError(
            f"{path} holds no pictures ({', '.join(PICTURES)}); give a folder of samples, .npy or .safetensors"
        )
    pictures: list[Tensor] = []
    broken: list[str] = []
    for file, picture in _pictures(files[:MOST]):
        if picture is None:
            broken.append(file.name)
        elif pictures and picture.shape != pictures[0].shape:
            raise LogError(
                f"{file} is {tuple(picture.shape)}, the pictures before it {tuple(pictures[0].shape)} (height, width, "
                "channels); give samples of one size"
            )
        else:
            pictures.append(picture)
    if broken:
        notes.append(f"{len(broken)} broken pictures were passed over: {', '.join(broken[:3])}")
    if not pictures:
        raise LogError(f"none of the {len(files)} pictures in {path} can be read")
    return torch.stack(pictures)


def _pictures(files: list[Path]) -> Iterator[tuple[Path, Tensor | None]]:
    """Each file with its values `(H, W, 3)`; None where it is broken."""
    import torch

    try:
        from PIL import Image
    except ImportError as error:
        raise LogError("reading pictures needs Pillow: pip install 'advloss[doctor]'") from error
    for file in files:
        try:
            with Image.open(file) as image:
                rgb = image.convert("RGB")
            values = torch.frombuffer(bytearray(rgb.tobytes()), dtype=torch.uint8)
            yield file, values.view(rgb.height, rgb.width, 3)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
            yield file, None


def _array(path: Path) -> Tensor:
    import torch

    try:
        if path.suffix == ".npy":
            try:
                import numpy
            except ImportError as error:
                raise LogError("reading .npy needs NumPy: pip install 'advloss[doctor]'") from error
            with path.open("rb") as file:
                array = numpy.lib.format.read_array(file, allow_pickle=False)
            samples = torch.from_numpy(array.astype("float32"))
        elif path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors = load_file(path)
            if len(tensors) != 1:
                raise LogError(f"{path} holds {len(tensors)} tensors; give one, of samples (N, ...)")
            (samples,) = tensors.values()
        else:
            raise LogError(f"{path} is neither a folder of pictures nor .npy nor .safetensors")
    except LogError:
        raise
    except Exception as error:
        raise LogError(f"{path} cannot be read as samples ({type(error).__name__}: {error})") from error
    if samples.ndim < 2:
        raise LogError(f"{path} has shape {tuple(samples.shape)}; give samples (N, ...)")
    return samples
