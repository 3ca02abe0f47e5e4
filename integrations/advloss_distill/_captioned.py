"""Images with captions, to be encoded: from a folder, a Hugging Face data set, or webdataset shards."""

from __future__ import annotations

import glob
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from torch import Tensor

from advloss import InputError, PluginError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"}
SHOWN = 5  # names in a message

Entry = tuple[str, Any, str]  # name for messages, what Pillow opens, caption


@final
class CaptionedImages:
    """Images `(3, side, side)` in [-1, 1] with their captions, read when asked for.

    Images are turned upright, put on white where they are transparent, cut to the square in their middle, and resized.
    One that cannot be read is left out, and named in `skipped`.

    Args:
        count: number of images.
        entry: from a place to a name, a file or what is in it, and a caption.
        side: in pixels.

    Attributes:
        skipped: by name, why an image could not be read.
    """

    def __init__(self, count: int, entry: Callable[[int], Entry], side: int) -> None:
        self._count, self._entry, self._side = count, entry, side
        self.skipped: dict[str, str] = {}

    @classmethod
    def from_folder(cls, folder: Path | str, side: int) -> CaptionedImages:
        """The images below a folder, each with its caption beside it: ``name.jpg`` and ``name.txt``.

        Raises:
            InputError: there are none, or one has no caption.
        """
        paths = sorted(path for path in Path(folder).rglob("*") if path.suffix.lower() in SUFFIXES)
        if not paths:
            raise InputError(f"there is no image in {folder}; it should hold {', '.join(sorted(SUFFIXES))} files")
        captions = [_caption(path) for path in paths]
        _check_captions(captions, [str(path) for path in paths], "write it to a .txt file of the same name")
        return cls(len(paths), lambda i: (str(paths[i]), paths[i], str(captions[i])), side)

    @classmethod
    def from_dataset(
        cls,
        name: str,
        side: int,
        *,
        split: str = "train",
        image_column: str = "image",
        caption_column: str = "text",
        **options: Any,
    ) -> CaptionedImages:
        """The rows of a Hugging Face data set.

        Args:
            name: as in `datasets.load_dataset`: on the hub, or a folder.
            options: of `load_dataset`, such as ``revision``.

        Raises:
            PluginError: the package `datasets` is missing.
            InputError: there is no such data set, split or column; a row has no caption.
        """
        return cls._from_rows(_load(name, split, options), name, side, image_column, caption_column)

    @classmethod
    def from_shards(
        cls, pattern: str, side: int, *, image_column: str | None = None, caption_column: str = "txt"
    ) -> CaptionedImages:
        """The samples of webdataset's tar files, ``data/{00000..00009}.tar`` written as ``data/*.tar``.

        Columns are the endings of the files in them (``jpg``, ``txt``). They are read by the loader of the package
        `datasets`, which has taken out webdataset's decoders that could run code, and copied to its cache once.

        Args:
            image_column: None takes the only one of images.

        Raises:
            PluginError: the package `datasets` is missing.
            InputError: there are no such files or columns, they are damaged, or a sample has no caption.
        """
        shards = find_shards(pattern)
        rows = _load("webdataset", "train", {"data_files": {"train": shards}}, shown=pattern)
        if image_column is None:
            found = [column for column, feature in rows.features.items() if type(feature).__name__ == "Image"]
            if len(found) != 1:
                raise InputError(f"{pattern} has images in {', '.join(found) or 'no column'}: say which column to take")
            (image_column,) = found
        return cls._from_rows(rows, pattern, side, image_column, caption_column)

    @classmethod
    def _from_rows(cls, rows: Any, name: str, side: int, image: str, caption: str) -> CaptionedImages:
        from datasets import Image

        for column in (image, caption):
            if column not in rows.column_names:
                raise InputError(f"{name} has no column {column!r}; it has {', '.join(rows.column_names)}")
        if type(rows.features[image]).__name__ != "Image":
            raise InputError(f"column {image!r} of {name} holds {rows.features[image]}, no images: name another one")
        rows = rows.cast_column(image, Image(decode=False))
        captions = [text for batch in rows.select_columns([caption]).iter(batch_size=1000) for text in batch[caption]]
        _check_captions(captions, [f"row {i} of {name}" for i in range(len(captions))], "name another column")

        pictures = rows.select_columns([image])

        def entry(place: int) -> Entry:
            stored = pictures[place][image] or {}
            content = stored.get("bytes")
            file = io.BytesIO(content) if content is not None else stored.get("path")
            label = f"row {place} of {name}" + (f" ({stored['path']})" if stored.get("path") else "")
            return label, file, captions[place]

        return cls(len(rows), entry, side)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[tuple[Tensor, str]]:
        """All that can be read, in order.

        Raises:
            InputError: none can.
        """
        for place in range(self._count):
            if (pair := self._read(place)) is not None:
                yield pair

    def draw(self, count: int) -> list[tuple[Tensor, str]]:
        """So many at random, with torch's global random numbers.

        Raises:
            InputError: none can be read.
        """
        pairs: list[tuple[Tensor, str]] = []
        while len(pairs) < count:
            for place in torch.randint(self._count, (count - len(pairs),)).tolist():
                if (pair := self._read(place)) is not None:
                    pairs.append(pair)
        return pairs

    def account(self) -> str:
        """What was skipped, in a sentence; empty where nothing was."""
        if not self.skipped:
            return ""
        shown = "; ".join(f"{name}: {why}" for name, why in list(self.skipped.items())[:SHOWN])
        return f"{len(self.skipped)} of {self._count} images could not be read and were skipped ({shown}{_more(self.skipped)})"

    def _read(self, place: int) -> tuple[Tensor, str] | None:
        name, file, caption = self._entry(place)
        try:
            return _square(file, self._side), caption
        except Exception as error:  # the formats' readers raise of all kinds
            self.skipped[name] = " ".join(str(error).split()) or type(error).__name__
        if len(self.skipped) == self._count:
            raise InputError(self.account())
        return None


def find_shards(pattern: str) -> list[str]:
    """The files of this name.

    Raises:
        InputError: there are none.
    """
    if not (shards := sorted(glob.glob(pattern))):
        raise InputError(f"no file is named {pattern!r}: give webdataset shards, such as 'data/*.tar'")
    return shards


def _square(file: Any, side: int) -> Tensor:
    """`(3, side, side)` in [-1, 1] of an image file."""
    from PIL import Image, ImageOps

    if file is None:
        raise InputError("there is no image in it")
    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I") or image.mode == "F":
        raise InputError(f"its values have no known range (mode {image.mode}): save 8 bits a channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    image = ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.LANCZOS)
    return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 127.5 - 1


def _load(name: str, split: str, options: dict[str, Any], shown: str | None = None) -> Any:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise PluginError("data sets need the package datasets: pip install 'advloss[distill,datasets]'") from error
    try:
        return load_dataset(name, split=split, **options)
    except Exception as error:  # networks, archives and file formats raise of all kinds
        why = error.__cause__ or error  # a DatasetGenerationError says nothing itself
        raise InputError(
            f"the split {split!r} of {shown or name!r} cannot be loaded: {' '.join(str(why).split())}"
        ) from error


def _caption(path: Path) -> str | None:
    beside = path.with_suffix(".txt")
    return _text(beside).strip() if beside.exists() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except ValueError as error:
        raise InputError(f"{path} is no text in UTF-8 ({error}): save it as such") from error


def _check_captions(captions: Sequence[Any], names: Sequence[str], way_out: str) -> None:
    missing = [name for name, caption in zip(names, captions) if not isinstance(caption, str) or not caption.strip()]
    if missing:
        raise InputError(
            f"{len(missing)} of {len(names)} images have no caption: {', '.join(missing[:SHOWN])}{_more(missing)}. Give "
            f"each a text ({way_out}), or take them out"
        )


def _more(names: Any) -> str:
    return f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""


def read_prompts(path: Path) -> list[str]:
    """A prompt a line; empty lines are none.

    Raises:
        InputError: there is none, or the file is no text in UTF-8.
    """
    prompts = [line.strip() for line in _text(path).splitlines() if line.strip()]
    if not prompts:
        raise InputError(f"there is no prompt in {path}: write one a line")
    return prompts
