"""Perceptual distances: LPIPS where its weights are, or any module or function of the user's."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor, nn

from advloss.errors import InputError, OptionError

Perceptual: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""``perceptual(samples, images)`` of `(N, C, H, W)` in [-1, 1]: a scalar, or one value a sample."""

_WEIGHTS = {"vgg": "vgg16-397923af.pth", "alex": "alexnet-owt-7be5be79.pth", "squeeze": "squeezenet1_1-b8a52dc0.pth"}


def load_lpips(net: str = "vgg") -> nn.Module:
    """LPIPS (arXiv:1801.03924) by the package `lpips`, frozen; torchvision's weights must be on this machine.

    Args:
        net: ``"vgg"`` for training, ``"alex"`` for measuring, or ``"squeeze"``.

    Raises:
        OptionError: another `net`; the package or the weights are missing.
    """
    if net not in _WEIGHTS:
        raise OptionError(f"net={net!r}: LPIPS has {', '.join(_WEIGHTS)}")
    if importlib.util.find_spec("lpips") is None:
        raise OptionError("LPIPS needs the package lpips: pip install 'advloss[lpips]'")
    weights = Path(torch.hub.get_dir()) / "checkpoints" / _WEIGHTS[net]
    if not weights.exists():
        raise OptionError(
            f'the weights of LPIPS are not on this machine ({weights}): run `python -c "import lpips; '
            f"lpips.LPIPS(net='{net}')\"` once with a network, or pass a perceptual module of your own"
        )
    import lpips

    with torch.random.fork_rng(devices=[]):  # its first weights would draw from the script's random numbers
        network: nn.Module = lpips.LPIPS(net=net, verbose=False)
    return network.requires_grad_(False).eval()


def perceptual_distance(perceptual: Perceptual, samples: Tensor, images: Tensor) -> Tensor:
    """The mean of `perceptual` over samples; videos `(N, C, T, H, W)` are judged frame by frame.

    Raises:
        InputError: it returned a map instead of distances.
    """
    if samples.ndim == 5:
        samples, images = (video.transpose(1, 2).flatten(0, 1) for video in (samples, images))
    distance = perceptual(samples, images)
    if not isinstance(distance, Tensor):
        raise InputError(
            f"the perceptual module returned a {type(distance).__name__}: return a tensor, one value a sample or a scalar "
            "(LPIPS: retPerLayer=False)"
        )
    if distance.numel() not in (1, len(samples)):
        raise InputError(
            f"the perceptual module returned a map of shape {tuple(distance.shape)} for {len(samples)} samples: return "
            "a scalar or one value a sample (LPIPS: spatial=False), or the map's mean"
        )
    return distance.mean()
