"""Layers that several discriminators are built from: convolutions with a norm by name, and their initialization."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn
from torch.nn.utils.parametrizations import spectral_norm

NORMS = ("batch", "instance", "group", "spectral", "none")

_CONV: dict[int, Callable[..., nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_BATCH: dict[int, Callable[..., nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
_INSTANCE: dict[int, Callable[..., nn.Module]] = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}


def conv_block(
    in_channels: int, out_channels: int, kernel: int, stride: int, *, norm: str, dims: int = 2
) -> list[nn.Module]:
    """Convolution (padding 1), norm, LeakyReLU 0.2.

    The convolution has no bias where a norm layer follows, which shifts by itself. ``"spectral"`` adds no layer:
    it is put on a whole module by `spectral_normalize`, after initialization.
    """
    layers = norm_layers(norm, out_channels, dims)
    convolution = _CONV[dims](in_channels, out_channels, kernel, stride, padding=1, bias=not layers)
    return [convolution, *layers, nn.LeakyReLU(0.2)]


def norm_layers(norm: str, channels: int, dims: int) -> list[nn.Module]:
    """The norm layer of this name; none for ``"spectral"`` and ``"none"``."""
    if norm == "batch":
        return [_BATCH[dims](channels)]
    if norm == "instance":
        return [_INSTANCE[dims](channels, affine=True)]
    if norm == "group":
        return [nn.GroupNorm(math.gcd(32, channels), channels)]  # 32 groups where they divide (Wu and He 2018)
    return []


def convolution(in_channels: int, out_channels: int, kernel: int, stride: int, *, dims: int = 2) -> nn.Module:
    """Convolution with bias, padding 1."""
    return _CONV[dims](in_channels, out_channels, kernel, stride, padding=1)


def initialize_normal(module: nn.Module) -> None:
    """DCGAN's initialization: weights N(0, 0.02), norm weights N(1, 0.02), biases 0. For `Module.apply`."""
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)):
        nn.init.normal_(module.weight, 0.0, 0.02)
    elif isinstance(module, (nn.modules.batchnorm._NormBase, nn.GroupNorm)):
        nn.init.normal_(module.weight, 1.0, 0.02)
    else:
        return
    if module.bias is not None:
        nn.init.zeros_(module.bias)


def initialize_leaky(module: nn.Module) -> None:
    """He's initialization for LeakyReLU 0.2: weights N(0, gain^2 / fan_in), biases 0. For `Module.apply`."""
    if isinstance(module, (nn.Conv2d, nn.Linear)):
        nn.init.kaiming_normal_(module.weight, a=0.2)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def spectral_normalize(module: nn.Module) -> None:
    """Put spectral normalization on every convolution, linear layer and embedding in `module`.

    To be called last: the power iteration starts from the weights as they are.
    """
    for layer in list(module.modules()):
        if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear, nn.Embedding)):
            spectral_norm(layer)
