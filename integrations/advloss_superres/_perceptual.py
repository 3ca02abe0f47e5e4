"""Perceptual distances: LPIPS and DISTS where their weights are, or any module or function of the user's."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from advloss import InputError, OptionError

Perceptual: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""``perceptual(made, originals)`` of `(N, C, H, W)` in [-1, 1]: a scalar, or one value a sample."""

_LPIPS = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth", "squeeze": "squeezenet1_1-b8a52dc0.pth"}


def load_lpips(net: str = "vgg") -> nn.Module:
    """LPIPS (arXiv:1801.03924) by the package `lpips`, frozen; torchvision's weights must be on this machine.

    Args:
        net: ``"vgg"`` for training, ``"alex"`` for measuring, or ``"squeeze"``.

    Raises:
        OptionError: another `net`; the package or the weights are missing.
    """
    if net not in _LPIPS:
        raise OptionError(f"net={net!r}: LPIPS has {', '.join(_LPIPS)}")
    if importlib.util.find_spec("lpips") is None:
        raise OptionError("LPIPS needs the package lpips: pip install 'advloss[superres,lpips]'")
    weights = Path(torch.hub.get_dir()) / "checkpoints" / _LPIPS[net]
    if not weights.exists():
        raise OptionError(
            f'the weights of LPIPS are not on this machine ({weights}): run `python -c "import lpips; '
            f"lpips.LPIPS(net='{net}')\"` once with a network, or pass a perceptual module of your own"
        )
    import lpips

    with torch.random.fork_rng(devices=[]):  # its first weights would draw from the script's random numbers
        network: nn.Module = lpips.LPIPS(net=net, verbose=False)
    return network.requires_grad_(False).eval()


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


def perceptual_distance(perceptual: Perceptual, made: Tensor, originals: Tensor) -> Tensor:
    """The mean of `perceptual` over samples.

    Raises:
        InputError: it returned a map instead of distances.
    """
    distance = perceptual(made, originals)
    if distance.numel() not in (1, len(made)):
        raise InputError(
            f"the perceptual module returned a map of shape {tuple(distance.shape)} for {len(made)} samples: return "
            "a scalar or one value a sample (LPIPS: spatial=False), or the map's mean"
        )
    return distance.mean()
