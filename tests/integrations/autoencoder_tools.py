"""Autoencoders in miniature: every kind of diffusers', from configurations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState, GradientState
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLCogVideoX,
    AutoencoderKLWan,
    AutoencoderTiny,
    VQModel,
)
from torch import Tensor, nn

from advloss import Adversary
from advloss_autoencoder import AutoencoderTraining, Objective, last_layer


def reset_accelerate() -> None:
    AcceleratorState._reset_state(reset_partial_state=True)
    GradientState._reset_state()


def kl_model() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=4,
        norm_num_groups=4,
    )


def tiny_model() -> AutoencoderTiny:
    return AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )


def dc_model() -> AutoencoderDC:
    return AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        upsample_block_type="interpolate",
        downsample_block_type="stride_conv",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
    )


def vq_model() -> VQModel:
    return VQModel(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=3,
        num_vq_embeddings=16,
        norm_num_groups=4,
    )


def wan_model(**options: Any) -> AutoencoderKLWan:
    options = {"dim_mult": [1, 1, 1, 1], "temperal_downsample": [False, True, True], **options}
    return AutoencoderKLWan(base_dim=4, z_dim=4, num_res_blocks=1, **options)


def cogvideox_model() -> AutoencoderKLCogVideoX:
    return AutoencoderKLCogVideoX(
        in_channels=3,
        out_channels=3,
        down_block_types=("CogVideoXDownBlock3D",) * 4,
        up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8),
        latent_channels=4,
        layers_per_block=1,
        norm_num_groups=2,
        temporal_compression_ratio=4,
    )


MODELS: dict[str, Callable[[], nn.Module]] = {
    "AutoencoderKL": kl_model,
    "AutoencoderTiny": tiny_model,
    "AutoencoderDC": dc_model,
    "VQModel": vq_model,
    "AutoencoderKLWan": wan_model,
    "AutoencoderKLCogVideoX": cogvideox_model,
}


def images_for(name: str, count: int = 2) -> torch.Tensor:
    """Images, or videos of nine frames, in [-1, 1]."""
    shape = (9, 16, 16) if name in ("AutoencoderKLWan", "AutoencoderKLCogVideoX") else (32, 32)
    return torch.rand(count, 3, *shape) * 2 - 1


PATCH = ("patch", {"width": 4, "depth": 1, "norm": "none"})


def tiny_training(accelerator: Accelerator, model: nn.Module | None = None, **options: Any) -> AutoencoderTraining:
    """A training in miniature, with everything on that has a state."""
    torch.manual_seed(0)
    model = model or kl_model()
    adversary = Adversary(
        PATCH,
        "hinge",
        {"lecam": {"weight": 0.1}, "r1": {"weight": 0.1, "every": 2}},
        weight=0.5,
        start_step=options.pop("start_step", 1),
        scheduler=lambda optimizer: torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9),
        seed=0,
    )
    objective = Objective(adversary, last_layer(model), ramp_steps=3, feature_matching=1.0, crop=24)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.Adam(trained, lr=1e-3)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1
    loader = torch.utils.data.DataLoader(images, batch_size=options.pop("batch", 2), shuffle=True)
    return AutoencoderTraining(model, objective, loader, optimizer, scheduler, accelerator=accelerator, **options)


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def alike(one: Any, other: Any) -> bool:
    """Whether two states are equal bit by bit."""
    if isinstance(one, Tensor):
        return isinstance(other, Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(value, other[key]) for key, value in one.items())
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(alike, one, other))
    return bool(one == other)
