"""The discriminator of StyleGAN-T and ADD: heads on a frozen vision transformer's tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from advloss import FeatureDiscriminator, OptionError
from advloss_timm._backbone import load_backbone, normalization
from advloss_timm._images import ImageInput
from advloss_timm._options import image_channels, whole, whole_or_none
from advloss_timm._token_heads import TokenHeads
from advloss_timm._tokens import Readout, TokenFeatures, check_transformer


def dino(
    *,
    backbone: str = "vit_small_patch16_224.dino",
    pretrained: bool = True,
    checkpoint_path: str | Path | None = None,
    blocks: Sequence[int] | None = None,
    readout: Readout = "add",
    in_channels: int = 3,
    resolution: int = 224,
    resize: bool = True,
    num_classes: int | None = None,
    condition_features: int | None = None,
) -> FeatureDiscriminator:
    """Frozen tokens of a vision transformer with a trained head a level; logits are a list of `(N, L)`, one a level.

    StyleGAN-T (arXiv:2301.09515 section 3.2, DINO ViT-S/16) and adversarial diffusion distillation (arXiv:2311.17042
    section 3.2; ``backbone="vit_small_patch14_dinov2.lvd142m"``). Samples `(N, in_channels, H, W)` in [-1, 1].
    Fused attention has no double backward: take R1 by the heads' inputs (``inputs="features"``, as ADD does), or
    its finite-difference form. Images are resized bicubic with antialiasing, where StyleGAN-T averages areas.

    Args:
        backbone: any vision transformer of timm.
        pretrained: load its weights; False is for tests.
        checkpoint_path: load them from this file instead.
        blocks: the blocks whose tokens are judged, beside the patch embedding, which comes first; default the last of
            each quarter: 2, 5, 8 and 11 of twelve, as published.
        readout: ``"add"`` (as published) adds the class token to each patch; ``"patches"`` leaves it out.
        in_channels: 3, or 1 for grey images.
        resolution: side of the images that the backbone sees, a multiple of its patch.
        resize: False keeps the samples' size, any multiple of the patch.
        num_classes: condition on classes by projection.
        condition_features: condition on vectors of this length by projection. With both, pass a mapping of the two.

    Raises:
        OptionError: no such backbone, or a value that it cannot use.
        PluginError: the pretrained weights cannot be had.
    """
    image_channels(in_channels)
    whole("resolution", resolution)
    whole_or_none("num_classes", num_classes)
    whole_or_none("condition_features", condition_features)
    options: dict[str, Any] = {"img_size": resolution} if resize else {"img_size": resolution, "dynamic_img_size": True}
    model = load_backbone(
        backbone, pretrained=pretrained, checkpoint_path=checkpoint_path, num_classes=0, **options
    ).eval()
    patch = _patch(model, backbone)
    if resolution % patch or resolution < 2 * patch:
        raise OptionError(f"resolution={resolution}; {backbone!r} needs a multiple of {patch}, at least {2 * patch}")
    check_transformer(model, backbone, resolution)
    images = ImageInput(in_channels, resolution if resize else None, *normalization(model), 2 * patch, patch)
    features = TokenFeatures(model, images, blocks, readout)
    return FeatureDiscriminator(features, TokenHeads(features.channels, num_classes, condition_features))


def _patch(model: Any, name: str) -> int:
    sides = getattr(getattr(model, "patch_embed", None), "patch_size", None)
    if not isinstance(sides, tuple) or len(set(sides)) != 1:
        raise OptionError(
            f"backbone={name!r} is no vision transformer with square patches; choose one (vit, deit, beit, eva)"
        )
    return cast(int, sides[0])
