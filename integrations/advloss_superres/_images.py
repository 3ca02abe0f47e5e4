"""Images to learn from and to measure on: embedded photographs, or a folder whose unusable files are named."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Subset

from advloss import InputError

TRAINING = ("astronaut", "brick", "camera", "grass", "gravel", "rocket", "stereo_motorcycle", "china.jpg", "flower.jpg")
HELD_OUT = ("chelsea", "coffee", "coins")
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}

WHITE_IS_ZERO = 262  # TIFF's tag of what a 0 means; there a 0 is white
TRANSPARENT = "has transparent pixels, whose colour nobody sees; save it without alpha channel"


class Images(Protocol):
    """Images by number: uint8 `(3, H, W)` of any sizes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


@dataclass(frozen=True)
class Skipped:
    """A file that is not used, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def photographs() -> tuple[list[Tensor], list[Tensor]]:
    """The photographs that scikit-image and scikit-learn bring along, split by image: to train on, and held out."""
    import skimage.data
    from sklearn.datasets import load_sample_image

    def photograph(name: str) -> Tensor:
        image = load_sample_image(name) if name.endswith(".jpg") else getattr(skimage.data, name)()
        return _from_array(image[0] if isinstance(image, tuple) else image)

    return [photograph(name) for name in TRAINING], [photograph(name) for name in HELD_OUT]


@final
class FolderImages:
    """The images below a folder, in the order of their paths, read again whenever they are asked for.

    All files are decoded once in advance, so that no bad one turns up after hours. What cannot be used is left out.

    Args:
        folder: it is searched through all levels.
        smallest: the length that both sides must have at least: that of a training crop.

    Attributes:
        skipped: the files that are left out, with reasons.

    Raises:
        InputError: no file can be used.
    """

    def __init__(self, folder: Path | str, smallest: int = 1) -> None:
        sizes, self.skipped = look_through(image_files(folder))
        small = {path for path, size in sizes.items() if min(size) < smallest}
        self.skipped += [Skipped(path, f"{_size(sizes[path])}, smaller than {smallest} pixels") for path in small]
        self.skipped.sort(key=lambda one: one.path)
        self.paths = [path for path in sizes if path not in small]
        if not self.paths:
            raise InputError(
                f"there is no usable image in {folder}; it should hold {', '.join(sorted(SUFFIXES))} files"
                + (f". {describe_skipped(self.skipped)}" if self.skipped else "")
            )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return read_image(self.paths[index])


def image_files(folder: Path | str) -> list[Path]:
    """The files below `folder` whose names end as images' do, sorted."""
    return sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())


def look_through(paths: Sequence[Path]) -> tuple[dict[Path, tuple[int, int]], list[Skipped]]:
    """Decode all files once: the heights and widths of those that can be used, and the others."""

    def look(path: Path) -> tuple[int, int] | Skipped:
        try:
            height, width = read_image(path).shape[1:]
        except InputError as error:
            return Skipped(path, str(error).removeprefix(f"{path}: "))
        return height, width

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(paths, pool.map(look, paths)))
    sizes = {path: size for path, size in found.items() if not isinstance(size, Skipped)}
    return sizes, [size for size in found.values() if isinstance(size, Skipped)]


def describe_skipped(skipped: Sequence[Skipped], shown: int = 10) -> str:
    """How many files were skipped, and the first of them by name; empty where there are none."""
    if not skipped:
        return ""
    names = "; ".join(map(str, skipped[:shown])) + ("; ..." if len(skipped) > shown else "")
    return f"{len(skipped)} file{'s' * (len(skipped) > 1)} skipped: {names}"


def read_image(path: Path | str) -> Tensor:
    """One file as uint8 `(3, H, W)`.

    Grey images become three equal channels, 16 bits the upper 8 of them, an opaque alpha channel is dropped.

    Raises:
        InputError: it is broken, has transparent pixels, or numbers without a known range.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as file:
            file.load()
            inverted = getattr(file, "tag_v2", {}).get(WHITE_IS_ZERO) == 0
            return _from_array(_pixels(ImageOps.exif_transpose(file), file.format, inverted))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # decoders raise nearly anything on damaged files
        raise InputError(f"{path}: cannot be read ({type(error).__name__}: {error})") from error


def _pixels(image: Any, kind: str, inverted: bool) -> np.ndarray:
    """A PIL image, of a file of that kind, as uint8 `(H, W)` or `(H, W, 3)`. PIL inverts 8 bits by itself, 16 bits not."""
    if image.mode == "F":
        raise InputError("holds floats, whose range nobody knows; save it with 8 or 16 bits")
    if image.mode == "I" and kind != "PNG":  # PNG has 16 bits at most
        raise InputError(
            "holds signed or 32-bit integers, whose range nobody knows; save it with 8 or 16 bits, unsigned"
        )
    hidden = image.info.get("transparency")
    if image.mode.startswith("I"):  # PIL would clip these at 255 instead of scaling them
        values = np.asarray(image).astype(np.int64)
        if hidden is not None and (values == hidden).any():
            raise InputError(TRANSPARENT)
        return ((65535 - values if inverted else values) >> 8).astype(np.uint8)
    if "A" in image.mode or hidden is not None:
        if isinstance(hidden, tuple) and max(hidden) > 255:  # of 16 bits, where PIL has kept the upper 8
            image.info["transparency"] = tuple(value >> 8 for value in hidden)
        image = image.convert("RGBA")
        if image.getextrema()[3][0] < 255:
            raise InputError(TRANSPARENT)
    return np.asarray(image.convert("RGB"))


def _from_array(image: np.ndarray) -> Tensor:
    array = np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image[..., :3]
    return torch.from_numpy(np.array(array)).permute(2, 0, 1).contiguous()


def split(images: Images, held_out: int) -> tuple[Images, Images]:
    """The first images, to train on, and the last `held_out`: by image, never by patch. The same for pairs.

    Raises:
        InputError: too few.
    """
    if not 1 <= held_out < len(images):
        raise InputError(f"{held_out} of {len(images)} images held out; leave at least one on either side")
    cut = len(images) - held_out
    items: Any = images
    return Subset(items, range(cut)), Subset(items, range(cut, len(images)))


def to_floats(image: Tensor) -> Tensor:
    """uint8 to floats in [-1, 1]."""
    return image.float() / 127.5 - 1


def to_bytes(images: Tensor) -> Tensor:
    """[-1, 1] to uint8, on the CPU."""
    return ((images.detach().float().cpu().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]} x {size[0]}"
