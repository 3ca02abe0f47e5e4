"""DISTS and other metrics of pyiqa, where their weights are."""

from __future__ import annotations

import importlib.util

from torch import Tensor, nn

from advloss import OptionError


class _UnitRange(nn.Module):
    """A metric of images in [0, 1], for images in [-1, 1]."""

    def __init__(self, metric: nn.Module) -> None:
        super().__init__()
        self.metric = metric

    def forward(self, made: Tensor, originals: Tensor) -> Tensor:
        distance: Tensor = self.metric((made.clamp(-1, 1) + 1) / 2, (originals.clamp(-1, 1) + 1) / 2)
        return distance


def load_metric(name: str = "dists") -> nn.Module:
    """A full-reference metric of the package `pyiqa`, frozen: ``"dists"`` (arXiv:2004.07728), ``"lpips"``, ...

    Raises:
        OptionError: the package or the metric's weights are missing.
    """
    if importlib.util.find_spec("pyiqa") is None:
        raise OptionError(f"{name} needs the package pyiqa: pip install pyiqa")
    import pyiqa

    try:
        metric = pyiqa.create_metric(name)
    except Exception as error:  # no such metric, or its weights cannot be had
        raise OptionError(f"pyiqa cannot make {name!r} ({error}); run it once with a network") from error
    return _UnitRange(metric).requires_grad_(False).eval()
