"""Images by name: a folder, a data set of torchvision, or one of Hugging Face."""

from __future__ import annotations

import functools
import inspect
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeAlias, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from advloss import InputError
from advloss_gan._digits import CLASSES, digits

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
CACHE = Path.home() / ".cache" / "advloss"
MakeData: TypeAlias = Callable[..., "ImageData"]


@final
class ImageData(Dataset[tuple[Tensor, ...]]):
    """Images `(channels, resolution, resolution)` in [-1, 1] with their class.

    Args:
        read: from a number to a picture of PIL, of any size and mode, and its class; pictures are cut to a square around
            their middle, and resized.
        count: how many there are.
        num_classes: how many classes, 1 where there are none.

    Attributes:
        skipped: files that could not be read.
    """

    def __init__(
        self,
        read: Callable[[int], tuple[Any, int]],
        count: int,
        num_classes: int,
        *,
        resolution: int,
        channels: int = 3,
        skipped: Sequence[Path] = (),
    ) -> None:
        if channels not in (1, 3):
            raise InputError(f"channels={channels}: images are read with 1 channel (grey) or 3 (RGB)")
        self.read, self.count, self.num_classes = read, count, num_classes
        self.resolution, self.channels, self.skipped = resolution, channels, tuple(skipped)

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        from PIL import ImageOps

        picture, label = self.read(index)
        mode, size = {1: "L", 3: "RGB"}[self.channels], (self.resolution, self.resolution)
        pixels = np.array(ImageOps.fit(as_shown(picture).convert(mode), size))
        image = torch.from_numpy(pixels).view(*size, self.channels).permute(2, 0, 1)
        return image.float() / 127.5 - 1, torch.tensor(label)


def load_images(name: str, *, resolution: int, channels: int = 3) -> Dataset[tuple[Tensor, ...]]:
    """Training images with their classes, by name.

    - ``"digits"``: scikit-learn's, 1 x 8 x 8 as they are;
    - ``"torchvision:FashionMNIST"``, ``"torchvision:CIFAR10"``, ...: a class of `torchvision.datasets`, downloaded once;
    - ``"datasets:uoft-cs/cifar10"``, ...: a data set of Hugging Face (`advloss[datasets]`);
    - anything else is a folder. Folders within it are its classes; without any, it has one. Every file is read once
      to begin with, and those that cannot be are skipped, counted and named in a warning.

    Raises:
        InputError: there is no such data set, no way to get it, or no image in it.
    """
    kind, _, rest = name.partition(":")
    make = functools.partial(ImageData, resolution=resolution, channels=channels)
    if name == "digits":
        if (resolution, channels) != (8, 1):
            raise InputError(f"the digits are 1 x 8 x 8; given: channels={channels}, resolution={resolution}")
        return digits()[0]
    if kind == "torchvision" and rest:
        return _from_torchvision(rest, make)
    if kind == "datasets" and rest:
        return _from_hugging_face(rest, make)
    return _from_folder(Path(name), make)


def num_classes_of(data: Dataset[Any]) -> int:
    """Classes of what `load_images` returned."""
    return data.num_classes if isinstance(data, ImageData) else CLASSES


def _from_folder(folder: Path, make: MakeData) -> ImageData:
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; by name there are digits, torchvision:NAME and datasets:NAME")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    with ThreadPoolExecutor() as pool:
        readable = list(pool.map(_can_be_read, paths))
    skipped = [path for path, good in zip(paths, readable) if not good]
    paths = [path for path, good in zip(paths, readable) if good]
    if skipped:
        names = ", ".join(str(path) for path in skipped[:5]) + (", ..." if len(skipped) > 5 else "")
        warnings.warn(
            f"{len(skipped)} files in {folder} are no readable images of 8 or 16 bits, and are skipped: {names}",
            stacklevel=3,
        )
    if not paths:
        raise InputError(f"there is no readable image in {folder}; it should hold {', '.join(SUFFIXES)} files")
    parts = [path.relative_to(folder).parts[:-1] for path in paths]
    classes = sorted({part[:1] for part in parts})

    def read(index: int) -> tuple[Any, int]:
        from PIL import Image

        with Image.open(paths[index]) as picture:
            picture.load()
        return picture, classes.index(parts[index][:1])

    return make(read, len(paths), len(classes), skipped=skipped)


def _can_be_read(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path) as picture:
            as_shown(picture).convert("RGB")
    except Exception:  # decoders raise nearly anything on damaged files
        return False
    return True


def as_shown(picture: Any) -> Any:
    """A picture of PIL as viewers show it: upright, on white, 16 bits brought to 8.

    Raises:
        InputError: its numbers have no known range.
    """
    from PIL import Image, ImageOps

    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        values = np.asarray(picture)
        if values.min() < 0 or values.max() > 65535:
            raise InputError(f"integers from {values.min()} to {values.max()} have no known range: save 8 or 16 bits")
        return Image.fromarray((values / 257).round().astype(np.uint8))  # convert() would clip at 255
    if picture.mode == "F":
        raise InputError("floating-point images have no known range: save 8 or 16 bits")
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    return picture


def _from_torchvision(name: str, make: MakeData) -> ImageData:
    try:
        import torchvision
    except ImportError as error:
        raise InputError(f"torchvision:{name}: install it with: pip install 'advloss[timm]'") from error
    load: Any = getattr(torchvision.datasets, name, None)
    if not callable(load):
        raise InputError(f"torchvision has no data set {name!r}; see torchvision.datasets, such as FashionMNIST")
    known = inspect.signature(load).parameters
    wanted = {"train": True, "split": "train", "download": True}
    options = {option: value for option, value in wanted.items() if option in known}
    try:
        data: Any = load(CACHE / "torchvision", **options)
        (_, label), count = data[0], len(data)
    except Exception as error:  # the network's, or what the class asks for; its words say more than ours
        raise InputError(f"torchvision:{name} cannot be loaded: {type(error).__name__}: {error}") from error
    classes = len(getattr(data, "classes", ())) if isinstance(label, int) else 0

    def read(index: int) -> tuple[Any, int]:
        picture, label = data[index]
        return picture, label if classes else 0  # a target that is no class is left aside

    return make(read, count, classes or 1)


def _from_hugging_face(name: str, make: MakeData) -> ImageData:
    try:
        from datasets import ClassLabel, Image, load_dataset
    except ImportError as error:
        raise InputError(f"datasets:{name}: install it with: pip install 'advloss[datasets]'") from error
    try:
        data: Any = load_dataset(name, split="train")
    except Exception as error:  # as above
        raise InputError(f"datasets:{name} cannot be loaded: {type(error).__name__}: {error}") from error
    columns: dict[type, list[str]] = {
        kind: [column for column, feature in data.features.items() if isinstance(feature, kind)]
        for kind in (Image, ClassLabel)
    }
    if not columns[Image]:
        raise InputError(f"datasets:{name} has no column of images; it has {', '.join(data.column_names)}")
    image, label = columns[Image][0], next(iter(columns[ClassLabel]), None)
    num_classes = data.features[label].num_classes if label else 1

    def read(index: int) -> tuple[Any, int]:
        row = data[index]
        return row[image], row[label] if label else 0

    return make(read, len(data), num_classes)
