"""The same noise at regular steps, as pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from advloss import InputError, OptionError
from advloss_gan._files import new_file


@final
class SampleGrids:
    """For `on_step` of `train_gan`: writes ``samples-000500.png`` and shows it to the accelerator's trackers.

    Args:
        folder: where pictures go.
        latent: noise `(N, latent_features)`, the same for all pictures.
        labels: classes `(N,)`, for a generator that takes them.
        every: steps between pictures.
        columns: images in a row.
        accelerator: whose trackers are shown the pictures, those that can show any.
    """

    def __init__(
        self,
        folder: Path,
        latent: Tensor,
        labels: Tensor | None = None,
        *,
        every: int = 500,
        columns: int = 10,
        accelerator: Any = None,
    ) -> None:
        if every < 1:
            raise OptionError(f"SampleGrids: every={every!r}; give a number of steps, 1 or more")
        self.folder, self.every, self.columns, self.accelerator = folder, every, columns, accelerator
        self.inputs = (latent,) if labels is None else (latent, labels)

    def __call__(self, step: int, averaged: nn.Module) -> None:
        """Draw, if `step` is due."""
        if step % self.every:
            return
        with torch.no_grad():
            images = averaged(*self.inputs)
        save_grid(self.folder / f"samples-{step:06d}.png", images, self.columns)
        for tracker in getattr(self.accelerator, "trackers", ()):
            if hasattr(tracker, "log_images"):
                grid = as_grid(images, self.columns).permute(1, 2, 0)[None]
                form = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
                tracker.log_images({"samples": (grid * 255).byte().numpy()}, step=step, **form)


def save_grid(path: Path, images: Tensor, columns: int = 10) -> None:
    """Write images `(N, 1 or 3, H, W)` in [-1, 1] as one PNG; small ones are enlarged so that a pixel can be seen."""
    from torchvision.transforms.functional import to_pil_image

    grid = as_grid(images, columns)
    factor = max(1, 32 // images.shape[-1])
    with new_file(path) as temporary:
        to_pil_image(grid.repeat_interleave(factor, 1).repeat_interleave(factor, 2)).save(temporary)


def as_grid(images: Tensor, columns: int) -> Tensor:
    """One image `(3, ...)` in [0, 1], `columns` images wide, with a pixel between them."""
    from torchvision.utils import make_grid

    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise InputError(f"samples have shape {tuple(images.shape)}; a grid is of images (N, 1 or 3, H, W)")
    unit = ((images.detach().float().cpu() + 1) / 2).nan_to_num().clamp(0, 1)
    grid: Tensor = make_grid(unit, nrow=columns, padding=1, pad_value=1.0)
    return grid
