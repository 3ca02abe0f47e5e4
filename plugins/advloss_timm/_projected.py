"""The discriminator of Projected GAN: a head a scale on randomly mixed frozen features."""

from __future__ import annotations

import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from advloss import FeatureDiscriminator, OptionError
from advloss_timm._backbone import fixed_size, load_backbone, normalization
from advloss_timm._images import ImageInput
from advloss_timm._map_heads import MapHeads, Norm, halvings
from advloss_timm._options import image_channels, whole, whole_or_none
from advloss_timm._pyramid import PyramidFeatures


def projected(
    *,
    backbone: str = "tf_efficientnet_lite0.in1k",
    pretrained: bool = True,
    checkpoint_path: str | Path | None = None,
    in_channels: int = 3,
    resolution: int = 256,
    resize: bool = True,
    width: int = 64,
    norm: Norm = "batch",
    seed: int = 0,
    num_classes: int | None = None,
) -> FeatureDiscriminator:
    """Frozen features at four scales, mixed at random, with a trained head a scale; logits are a list of `(N, 1, h, w)`.

    Projected GAN (Sauer et al. 2021, arXiv:2111.01007), which trains with the hinge loss and DiffAugment. Samples
    `(N, in_channels, H, W)` in [-1, 1]. At the default resolution the logits are 5 x 5 at each scale.

    Args:
        backbone: any convolutional model of timm that gives features at four scales.
        pretrained: load its weights; False is for tests.
        checkpoint_path: load them from this file instead.
        in_channels: 3, or 1 for grey images.
        resolution: side of the images that the backbone sees; it also sets how often the heads halve their maps.
        resize: False keeps the samples' size.
        width: channels of the finest mixed map.
        norm: of the heads, ``"batch"`` (as published) or ``"none"``.
        seed: of the random mixing.
        num_classes: condition on classes by projection.

    Raises:
        OptionError: no such backbone, or a value that it cannot use.
        PluginError: the pretrained weights cannot be had.
    """
    image_channels(in_channels)
    whole("resolution", resolution)
    whole("width", width)
    whole("seed", seed, 0)
    whole_or_none("num_classes", num_classes)
    options: dict[str, Any] = {"features_only": True, "out_indices": (-4, -3, -2, -1)}
    if fixed_size(backbone):
        options["img_size"] = resolution
    model = load_backbone(backbone, pretrained=pretrained, checkpoint_path=checkpoint_path, **options).eval()
    maps = _probe(model, backbone, resolution)
    sides = [2 * maps[0].shape[-1], *(scale.shape[-1] for scale in maps[:3])]
    channels = [scale.shape[1] for scale in maps]
    smallest = math.ceil(max(4 * 2**n * resolution / side for n, side in zip(halvings(sides), sides)))
    if smallest > resolution:
        raise OptionError(f"resolution={resolution}; with {backbone!r} the heads need at least {smallest}")
    images = ImageInput(in_channels, resolution if resize else None, *normalization(model), smallest)
    features = PyramidFeatures(model, images, channels, width, seed)
    return FeatureDiscriminator(features, MapHeads(features.channels, sides, width, num_classes, norm))


def _probe(model: Any, name: str, size: int) -> list[Tensor]:
    """The backbone's maps of an empty image, which tell their channels and sizes."""
    with torch.no_grad():
        try:
            maps: list[Tensor] = model(torch.zeros(1, 3, size, size))
        except (AssertionError, RuntimeError) as error:
            raise OptionError(f"backbone={name!r} does not take images of side {size}: {error}") from error
    channels = list(model.feature_info.channels())
    sides = [scale.shape[-1] for scale in maps]
    if len(maps) != 4 or [m.shape[1] for m in maps] != channels or any(a <= b for a, b in pairwise(sides)):
        raise OptionError(
            f"backbone={name!r} gives {[tuple(m.shape[1:]) for m in maps]}, not maps (C, h, w) at four scales; choose a "
            "convolutional model of timm (efficientnet, resnet, convnext), or the discriminator 'dino' for a plain transformer"
        )
    return maps
