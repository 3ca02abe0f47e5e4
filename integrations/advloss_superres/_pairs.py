"""Pairs of a low-resolution image and its original: crops to train on, whole images to measure on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, final

import torch
from torch import Tensor
from torch.utils.data import Dataset

from advloss import InputError, OptionError
from advloss_superres._bicubic import Degradation, check_scale, resize
from advloss_superres._images import (
    Images,
    Skipped,
    describe_skipped,
    image_files,
    look_through,
    read_image,
    to_bytes,
    to_floats,
)

Pair = tuple[Tensor, Tensor]


class Pairs(Protocol):
    """Whole pairs by number: uint8 `(3, H, W)` and `(3, scale H, scale W)`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Pair: ...


@final
class MultiScale:
    """Images, and after them all of them again in smaller sizes: denser detail than photographs have at their full size.

    Real-ESRGAN's training sets are made so (arXiv:2107.10833, released scripts).

    Args:
        factors: of the sides.
        smallest: the length that sides are not shrunk below: that of a training crop.
    """

    def __init__(self, images: Images, factors: Sequence[float] = (0.75, 0.5), smallest: int = 1) -> None:
        self.images, self.factors, self.smallest = images, (1.0, *factors), smallest

    def __len__(self) -> int:
        return len(self.images) * len(self.factors)

    def __getitem__(self, index: int) -> Tensor:
        turn, number = divmod(index, len(self.images))
        image, factor = self.images[number], self.factors[turn]
        height, width = (max(min(self.smallest, n), round(n * factor)) for n in image.shape[1:])
        return image if factor == 1 else to_bytes(resize(to_floats(image)[None], (height, width)))[0]


@final
class DegradedCrops(Dataset[Pair]):
    """Random crops of images, and what a degradation makes of them: floats in [-1, 1], turned and mirrored at random.

    A crop is degraded together with its surroundings, so that its border looks as it does in the whole image.

    Args:
        images: at least `side` long on both sides.
        degradation: draws from torch's global generator, so that a resumed run sees the same pairs.
        side: of the original's crop, a multiple of the scale.
        crops: of each image in one pass.

    Raises:
        OptionError: `side` is no multiple of the scale.
    """

    def __init__(self, images: Images, degradation: Degradation, side: int, crops: int = 1) -> None:
        _check_side(side, degradation.scale)
        self.images, self.degradation, self.side, self.crops = images, degradation, side, crops

    def __len__(self) -> int:
        return len(self.images) * self.crops

    def __getitem__(self, index: int) -> Pair:
        high, scale, margin = self.images[index % len(self.images)], self.degradation.scale, self.degradation.margin
        window, around = [], []
        for length in high.shape[1:]:
            begin = _draw(length // scale, self.side // scale)
            end = begin + self.side // scale
            first, last = max(0, begin - margin), min(length // scale, end + margin)
            around.append(slice(first * scale, last * scale))
            window.append((begin - first, end - first))
        surroundings = to_floats(high[:, around[0], around[1]])
        generator = torch.Generator().manual_seed(int(torch.randint(2**62, ())))
        low = self.degradation(surroundings[None], generator)[0]
        (top, bottom), (left, right) = window
        high = surroundings[:, top * scale : bottom * scale, left * scale : right * scale]
        return _turn(low[:, top:bottom, left:right], high)


@final
class PairedCrops(Dataset[Pair]):
    """Random crops at the same place of both images of a pair: floats in [-1, 1], turned and mirrored at random.

    Args:
        pairs: whose originals are at least `side` long on both sides.
        scale: of the pairs.
        side: of the original's crop, a multiple of the scale.
        crops: of each pair in one pass.

    Raises:
        OptionError: `side` is no multiple of the scale.
    """

    def __init__(self, pairs: Pairs, scale: int, side: int, crops: int = 1) -> None:
        _check_side(side, scale)
        self.pairs, self.scale, self.side, self.crops = pairs, scale, side, crops

    def __len__(self) -> int:
        return len(self.pairs) * self.crops

    def __getitem__(self, index: int) -> Pair:
        (low, high), scale = self.pairs[index % len(self.pairs)], self.scale
        side = self.side // scale
        top, left = (_draw(length, side) for length in low.shape[1:])
        low = low[:, top : top + side, left : left + side]
        high = high[:, top * scale : (top + side) * scale, left * scale : (left + side) * scale]
        return _turn(to_floats(low), to_floats(high))


@final
class DegradedPairs(Dataset[Pair]):
    """Whole images, cut at the right and below to multiples of the scale, and what a degradation makes of them.

    Floats in [-1, 1]. The degradation of an image depends on its number alone: every evaluation sees the same.
    """

    def __init__(self, images: Images, degradation: Degradation) -> None:
        self.images, self.degradation = images, degradation

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Pair:
        image, scale = self.images[index], self.degradation.scale
        height, width = (length // scale * scale for length in image.shape[1:])
        high = to_floats(image[:, :height, :width])
        return self.degradation(high[None], torch.Generator().manual_seed(index))[0], high


@final
class WholePairs(Dataset[Pair]):
    """Whole pairs as floats in [-1, 1]."""

    def __init__(self, pairs: Pairs) -> None:
        self.pairs = pairs

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Pair:
        low, high = self.pairs[index]
        return to_floats(low), to_floats(high)


@final
class FolderPairs:
    """Real pairs from two folders: files of one name below both; `name` or ``namex{scale}`` among the low ones.

    Originals may be up to `scale` - 1 pixels larger than the low-resolution image times `scale`; this is cut away.

    Args:
        low: folder of the low-resolution images.
        high: folder of the originals.
        scale: 1 for images of one size (denoising, translation).
        smallest: the length that both sides of an original must have at least: that of a training crop.

    Attributes:
        skipped: the files that are left out, with reasons: broken ones, those without partner, of sizes that do not fit.

    Raises:
        InputError: no pair can be used.
    """

    def __init__(self, low: Path | str, high: Path | str, scale: int, smallest: int = 1) -> None:
        check_scale(scale)
        self.scale, self.skipped = scale, list[Skipped]()
        highs = self._by_name(high)
        lows = self._by_name(low, lambda name: name if name in highs else name.removesuffix(f"x{scale}"))
        for name in sorted(lows.keys() ^ highs.keys()):
            path, other = (lows[name], high) if name in lows else (highs[name], low)
            self.skipped.append(Skipped(path, f"has no partner in {other}"))
        both = sorted(lows.keys() & highs.keys())
        sizes, broken = look_through([path for name in both for path in (lows[name], highs[name])])
        self.skipped += broken
        self.paths = list[tuple[Path, Path]]()
        for name in both:
            pair = lows[name], highs[name]
            if pair[0] in sizes and pair[1] in sizes and self._fit(pair[1], sizes[pair[0]], sizes[pair[1]], smallest):
                self.paths.append(pair)
        if not self.paths:
            found = f". {describe_skipped(self.skipped)}" if self.skipped else ""
            raise InputError(f"there is no usable pair in {low} and {high}; partners have the same name{found}")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Pair:
        low, high = (read_image(path) for path in self.paths[index])
        height, width = (length * self.scale for length in low.shape[1:])
        return low, high[:, :height, :width]

    def _by_name(self, folder: Path | str, partner: Callable[[str], str] = str) -> dict[str, Path]:
        """Files by their path below `folder`, without suffix, as `partner` says it."""
        named: dict[str, Path] = {}
        for path in image_files(folder):
            name = partner(path.relative_to(folder).with_suffix("").as_posix())
            if name in named:
                self.skipped.append(Skipped(path, f"has the name of {named[name].name}"))
            named.setdefault(name, path)
        return named

    def _fit(self, path: Path, low: tuple[int, int], high: tuple[int, int], smallest: int) -> bool:
        excess = [large - small * self.scale for small, large in zip(low, high)]
        if not all(0 <= pixels < self.scale for pixels in excess):
            sizes = f"{high[1]} x {high[0]}, its partner {low[1]} x {low[0]}"
            self.skipped.append(Skipped(path, f"{sizes}, which does not fit scale {self.scale}"))
            return False
        if min(low) * self.scale < smallest:
            self.skipped.append(Skipped(path, f"{high[1]} x {high[0]}, smaller than {smallest} pixels"))
            return False
        return True


def _check_side(side: int, scale: int) -> None:
    if side < scale or side % scale:
        raise OptionError(f"side={side!r}: give a multiple of the scale {scale}")


def _draw(length: int, part: int) -> int:
    """Where a part of that length begins."""
    if part > length:
        raise InputError(f"an image of {length} pixels has no crop of {part}: leave it out, or take smaller crops")
    return int(torch.randint(length - part + 1, ()))


def _turn(*images: Tensor) -> Pair:
    """All in one of the eight positions of a square."""
    mirrored, flipped, transposed = (bool(torch.rand(()) < 0.5) for _ in range(3))
    made = []
    for image in images:
        image = image.flip(-1) if mirrored else image
        image = image.flip(-2) if flipped else image
        made.append((image.transpose(-2, -1) if transposed else image).contiguous())
    low, high = made
    return low, high
