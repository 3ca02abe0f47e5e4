"""Photographs to train on and to hold out: embedded ones, a folder, or a Hugging Face data set by name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, final

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from advloss import InputError, OptionError

TRAINING = ("astronaut", "brick", "camera", "coffee", "grass", "gravel", "rocket", "stereo_motorcycle")
HELD_OUT = ("chelsea",)
_SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}


class Images(Protocol):
    """Images by number: uint8 `(3, H, W)` of any sizes."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


def photographs() -> tuple[Images, Images]:
    """The photographs that scikit-image and scikit-learn bring along: those to train on, and those held out."""
    import skimage.data
    from sklearn.datasets import load_sample_image

    def scikit_image(name: str) -> Tensor:
        image = getattr(skimage.data, name)()
        return as_tensor(image[0] if isinstance(image, tuple) else image)

    training = [scikit_image(name) for name in TRAINING] + [as_tensor(load_sample_image("flower.jpg"))]
    held_out = [scikit_image(name) for name in HELD_OUT] + [as_tensor(load_sample_image("china.jpg"))]
    return training, held_out


@final
class folder_images:  # noqa: N801
    """The images below a folder, in the order of their paths, read when asked for.

    Raises:
        InputError: there are none; one cannot be read.
    """

    def __init__(self, folder: Path | str) -> None:
        self.paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in _SUFFIXES)
        if not self.paths:
            raise InputError(f"there is no image in {folder}; it should hold {', '.join(sorted(_SUFFIXES))} files")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        from PIL import Image

        path = self.paths[index]
        try:
            with Image.open(path) as image:
                return as_tensor(as_rgb(image))
        except Exception as error:  # the formats' readers raise of all kinds
            raise InputError(f"{path} cannot be read ({error}): mend it or take it out of the folder") from error


@final
class dataset_images:  # noqa: N801
    """The images of a Hugging Face data set.

    Args:
        name: as in `datasets.load_dataset`: on the Hub, or a folder.
        split: of the data set.
        column: that holds the images.

    Raises:
        OptionError: the package `datasets` is missing.
        InputError: there is no such data set, split or column; a row holds no image.
    """

    def __init__(self, name: str, split: str = "train", column: str = "image") -> None:
        try:
            from datasets import load_dataset
        except ImportError as error:
            raise OptionError(
                "data sets by name need the package datasets: pip install 'advloss[autoencoder,datasets]'"
            ) from error
        try:
            self.rows: Any = load_dataset(name, split=split)
        except (OSError, ValueError) as error:
            raise InputError(f"the split {split!r} of the data set {name!r} cannot be loaded: {error}") from error
        self.name, self.column = name, column
        if column not in self.rows.column_names:
            raise InputError(f"{name} has no column {column!r}; it has {', '.join(self.rows.column_names)}")

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Tensor:
        try:
            return as_tensor(as_rgb(self.rows[index][self.column]))
        except Exception as error:
            raise InputError(f"row {index} of {self.name} has no readable {self.column!r}: {error}") from error


@final
class RandomCrops(Dataset[Tensor]):
    """Random crops `(3, side, side)` in [-1, 1], mirrored at random: `crops` of each image a pass.

    Args:
        images: where they come from.
        side: of a crop; smaller images are enlarged to it.
        crops: of each image in one pass.
    """

    def __init__(self, images: Images, side: int, crops: int = 1) -> None:
        self.images, self.side, self.crops = images, side, crops

    def __len__(self) -> int:
        return len(self.images) * self.crops

    def __getitem__(self, index: int) -> Tensor:
        image = at_least(self.images[index % len(self.images)], self.side)
        top, left = (int(torch.randint(length - self.side + 1, ())) for length in image.shape[1:])
        crop = image[:, top : top + self.side, left : left + self.side]
        return scale(crop.flip(-1) if torch.rand(()) < 0.5 else crop)


@final
class HeldOut(Dataset[Tensor]):
    """Whole images `(3, H, W)` in [-1, 1], cut at the right and below to sides that `multiple` divides.

    Args:
        images: where they come from.
        multiple: of which sides are; smaller images are enlarged to it.
        largest: side; of larger images the middle.
    """

    def __init__(self, images: Images, multiple: int, largest: int | None = None) -> None:
        self.images, self.multiple, self.largest = images, multiple, largest

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        image = at_least(self.images[index], self.multiple)
        if self.largest is not None:
            image = middle(image, self.largest)
        height, width = (side // self.multiple * self.multiple for side in image.shape[1:])
        return scale(image[:, :height, :width])


def middle(image: Tensor, side: int) -> Tensor:
    """The middle of an image, at most `side` wide and high."""
    top, left = (max(length - side, 0) // 2 for length in image.shape[1:])
    return image[:, top : top + side, left : left + side]


def as_rgb(image: Any) -> np.ndarray:
    """uint8 `(H, W, 3)` of a Pillow image as viewers show it: turned upright, on white, 16 bits brought to 8.

    Raises:
        InputError: it is no Pillow image, or its numbers have no known range.
    """
    from PIL import Image, ImageOps

    if not isinstance(image, Image.Image):
        raise InputError(f"a {type(image).__name__} is no image; give a column of images")
    white_is_zero, kind = getattr(image, "tag_v2", {}).get(262) == 0, image.format
    image = ImageOps.exif_transpose(image)
    if image.mode == "F":
        raise InputError("floating-point images have no known range: save 8 or 16 bits")
    if image.mode == "I" and kind != "PNG":  # PNG has 16 bits at most
        raise InputError("signed and 32-bit integers have no known range: save 8 or 16 bits, unsigned")
    hidden = image.info.get("transparency")
    if image.mode.startswith("I"):
        values = np.asarray(image).astype(np.int64)
        values = 65535 - values if white_is_zero else np.where(values == hidden, 65535, values)
        image = Image.fromarray((values / 257).round().astype(np.uint8))  # convert() would clip at 255
    if isinstance(hidden, tuple) and max(hidden) > 255:  # of 16 bits, where Pillow has kept the upper 8
        image.info["transparency"] = tuple(value >> 8 for value in hidden)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return np.asarray(image.convert("RGB"))


def as_tensor(image: np.ndarray) -> Tensor:
    """uint8 `(3, H, W)` from an array `(H, W)`, `(H, W, 3)` or `(H, W, 4)`."""
    array = np.repeat(image[..., None], 3, axis=-1) if image.ndim == 2 else image[..., :3]
    return torch.from_numpy(np.array(array)).permute(2, 0, 1).contiguous()


def scale(image: Tensor) -> Tensor:
    """uint8 to floats in [-1, 1]."""
    return image.float() / 127.5 - 1


def at_least(image: Tensor, side: int) -> Tensor:
    """`image` enlarged, if need be, until its shorter side is `side`."""
    height, width = image.shape[1:]
    if min(height, width) >= side:
        return image
    factor = side / min(height, width)
    size = max(side, round(height * factor)), max(side, round(width * factor))
    enlarged = torch.nn.functional.interpolate(image[None].float(), size=size, mode="bicubic", antialias=True)
    return enlarged[0].round().clamp(0, 255).to(torch.uint8)


def split(images: Images, held_out: int) -> tuple[Images, Images]:
    """The first images to train on, and the last `held_out`.

    Raises:
        InputError: too few.
    """
    if not 1 <= held_out < len(images):
        raise InputError(f"{held_out} of {len(images)} images held out: hold out fewer, from 1 on")
    cut = len(images) - held_out
    return Part(images, range(cut)), Part(images, range(cut, len(images)))


@final
class Part:
    """Some of the images."""

    def __init__(self, images: Images, places: Sequence[int]) -> None:
        self.images, self.places = images, places

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[self.places[index]]
