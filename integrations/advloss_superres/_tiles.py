"""Inference on images larger than memory, tile by tile, without seams."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

from advloss import InputError, OptionError


@torch.no_grad()
def restore(
    model: Callable[[Tensor], Tensor], images: Tensor, *, tile: int, overlap: int = 16, multiple: int = 1
) -> Tensor:
    """What `model` makes of `images`, computed in tiles of `tile` x `tile` pixels of the input.

    Every tile is given `overlap` pixels more on each side, as far as there are any, and what is made of them is cut away.
    Where `overlap` reaches as far as the network looks (`reach`), the result is that of the whole image, also at its
    borders: there a tile ends where the image does. A network that works in windows (SwinIR) needs `tile` and `overlap` that are
    multiples of the window's side, and an overlap a window larger than `reach`, which depends on the place in a window.

    Args:
        model: from `(N, C, h, w)` to `(N, C', scale h, scale w)`, in eval mode.
        images: `(N, C, H, W)`.
        tile: side, without the overlap.
        overlap: pixels of the input; 16 for small networks, 32 or more for deep ones.
        multiple: what the network's downsampling asks sides to be multiples of; H, W, `tile` and `overlap` must be.

    Raises:
        OptionError: lengths below 1, or no multiples.
        InputError: no floats, sides that are no multiples, or an output that is no multiple of the input.
    """
    if tile < 1 or overlap < 0 or multiple < 1 or tile % multiple or overlap % multiple:
        raise OptionError(
            f"tile={tile!r}, overlap={overlap!r}: give a tile of 1 or more and an overlap of 0 or more, multiples of {multiple}"
        )
    if images.dim() != 4 or not images.numel() or images.shape[2] % multiple or images.shape[3] % multiple:
        raise InputError(f"images have shape {tuple(images.shape)}: give (N, C, H, W), sides multiples of {multiple}")
    if not images.is_floating_point():
        raise InputError(f"images have dtype {images.dtype}: give floats in [-1, 1] (x / 127.5 - 1)")
    result: Tensor | None = None
    for rows, columns in _tiles(images.shape[2], images.shape[3], tile):
        (top, bottom), (left, right) = (
            (max(0, part.start - overlap), min(length, part.stop + overlap))
            for part, length in zip((rows, columns), images.shape[2:])
        )
        made = model(images[:, :, top:bottom, left:right])
        scale = _scale(made, bottom - top, right - left)
        if result is None:
            size = images.shape[2] * scale, images.shape[3] * scale
            result = made.new_empty(len(images), made.shape[1], *size)
        inside = made[:, :, (rows.start - top) * scale :, (columns.start - left) * scale :]
        place = result[:, :, rows.start * scale : rows.stop * scale, columns.start * scale : columns.stop * scale]
        place.copy_(inside[:, :, : place.shape[2], : place.shape[3]])
    assert result is not None
    return result


def reach(model: nn.Module, *, channels: int = 3, side: int = 129) -> int:
    """How many pixels of the input around a pixel the model looks at, measured by a gradient; at most ``side // 2``.

    Args:
        side: of the input that is tried; if the answer is ``side // 2``, the reach may be larger: try a larger one.
    """
    parameter = next(model.parameters())
    images = torch.rand(1, channels, side, side, device=parameter.device, dtype=parameter.dtype) * 2 - 1
    was_training = model.training
    try:
        made = model.eval()(images.requires_grad_())
    finally:
        model.train(was_training)
    scale, middle = _scale(made, side, side), side // 2
    centre = made[:, :, middle * scale : (middle + 1) * scale, middle * scale : (middle + 1) * scale]
    (slope,) = torch.autograd.grad(centre.sum(), [images])
    seen = slope.abs().sum((0, 1)).nonzero()
    return int((seen - middle).abs().max()) if len(seen) else 0


def _tiles(height: int, width: int, tile: int) -> Iterator[tuple[slice, slice]]:
    for top in range(0, height, tile):
        for left in range(0, width, tile):
            yield slice(top, min(top + tile, height)), slice(left, min(left + tile, width))


def _scale(made: Tensor, height: int, width: int) -> int:
    scale = made.shape[2] // height
    if scale < 1 or tuple(made.shape[2:]) != (height * scale, width * scale):
        raise InputError(
            f"the network made {tuple(made.shape[2:])} of {(height, width)}, no whole multiple: give `multiple`, what "
            "its downsampling divides sides by"
        )
    return scale
