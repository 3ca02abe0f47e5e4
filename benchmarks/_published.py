"""Published models by their sizes: diffusers pipelines with random weights, or on the device ``meta`` with none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from torch import Tensor

from advloss_distill import Conditions, Family, family_of

Named = tuple[str, Mapping[str, Any]]
"""A class of diffusers, and its configuration."""
FOUR = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}


@dataclass(frozen=True, kw_only=True)
class Published:
    """A model on the hub.

    Attributes:
        name: in words.
        pipeline: a class of diffusers.
        network: what is distilled, with the settings of its ``config.json`` that are not its class's defaults.
        parameters: how many its authors say that it has.
        resolution: of its images, in pixels.
        told: sizes of one sample's conditions; those of prompts as long as its pipeline encodes them.
        small: settings that leave some tens of millions of parameters; the text's sizes stay.
        small_resolution: at which a step of the small one takes a CPU seconds.
        missing: parts of the pipeline that are left out.
    """

    name: str
    pipeline: str
    network: Named
    parameters: float
    resolution: int
    told: Mapping[str, tuple[int, ...]]
    scheduler: Named
    vae: Named
    small: Mapping[str, Any]
    small_resolution: int = 256
    missing: tuple[str, ...] = ("text_encoder", "tokenizer")

    @property
    def tokens(self) -> int:
        """Of a prompt; 0 where there are none."""
        return self.told.get("prompt_embeds", (0,))[0]

    def build(self, device: str = "meta", resolution: int | None = None, *, small: bool = False) -> tuple[Any, Family]:
        """Its pipeline without text encoders, its networks on `device`, and its family, at its own or another resolution."""
        resolution = resolution or (self.small_resolution if small else self.resolution)
        kind, settings = self.network
        if "sample_size" in settings:
            settings = {**settings, "sample_size": settings["sample_size"] * resolution // self.resolution}
        vae, vae_settings = self.vae
        scheduler, schedule = self.scheduler
        with torch.device(device):
            network = getattr(diffusers, kind)(**{**settings, **(self.small if small else {})})
            decoder = getattr(diffusers, vae)(**{**vae_settings, **(SMALL_VAES[vae] if small else {})})
        part = "unet" if kind.startswith("UNet") else "transformer"
        parts = {part: network, "vae": decoder, "scheduler": getattr(diffusers, scheduler)(**schedule)}
        options = {"requires_safety_checker": False} if "safety_checker" in self.missing else {}
        made = getattr(diffusers, self.pipeline)(**parts, **dict.fromkeys(self.missing), **options)
        return made, family_of(made, resolution=resolution)

    def conditions(self, count: int, device: str) -> Conditions:
        """Of `count` samples, at random; prompts fill all tokens."""

        def drawn(name: str, size: tuple[int, ...]) -> Tensor:
            whole = {"class_labels", "prompt_attention_mask"}
            return torch.ones(count, *size, dtype=torch.long) if name in whole else torch.randn(count, *size)

        return {name: drawn(name, size).to(device) for name, size in self.told.items()}


def _prompt(tokens: int, width: int, pooled: int = 0) -> dict[str, tuple[int, ...]]:
    return {"prompt_embeds": (tokens, width), **({"pooled_prompt_embeds": (pooled,)} if pooled else {})}


def _kl(channels: int, scale: float, **options: Any) -> Named:
    """The autoencoder of latent diffusion (arXiv:2112.10752), 8 pixels a latent, 84 million parameters."""
    widths = {"block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, **FOUR}
    return "AutoencoderKL", {**widths, "latent_channels": channels, "scaling_factor": scale, **options}


SMALL_VAES: dict[str, dict[str, Any]] = {
    "AutoencoderKL": {"block_out_channels": (32, 64, 128, 128)},
    "AutoencoderDC": {
        "encoder_block_out_channels": (32, 64, 128, 128, 256, 256),
        "decoder_block_out_channels": (32, 64, 128, 128, 256, 256),
    },
}
# of the folder vae of Efficient-Large-Model/Sana_1600M_1024px_diffusers: DC-AE, 32 pixels a latent (arXiv:2410.10733)
DC = {
    "latent_channels": 32,
    "encoder_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
    "decoder_block_types": ("ResBlock",) * 3 + ("EfficientViTBlock",) * 3,
    "encoder_block_out_channels": (128, 256, 512, 512, 1024, 1024),
    "decoder_block_out_channels": (128, 256, 512, 512, 1024, 1024),
    "encoder_layers_per_block": (2, 2, 2, 3, 3, 3),
    "decoder_layers_per_block": (3,) * 6,
    "encoder_qkv_multiscales": ((), (), (), (5,), (5,), (5,)),
    "decoder_qkv_multiscales": ((), (), (), (5,), (5,), (5,)),
    "downsample_block_type": "conv",
    "upsample_block_type": "interpolate",
    "decoder_norm_types": "rms_norm",
    "decoder_act_fns": "silu",
    "scaling_factor": 0.41407,
}
SD = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "steps_offset": 1}
DDIM = {**SD, "clip_sample": False}
DDPM = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}
TWO = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
UNSAFE = ("text_encoder", "tokenizer", "safety_checker", "feature_extractor")
SMALL_UNET = {"block_out_channels": (64, 128, 256, 256), "layers_per_block": 1}
SDXL = {
    "sample_size": 128,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": (5, 10, 20),
    "cross_attention_dim": 2048,
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
SD3 = {
    "sample_size": 128,
    "num_layers": 24,
    "attention_head_dim": 64,
    "num_attention_heads": 24,
    "caption_projection_dim": 1536,
    "pos_embed_max_size": 192,
}
PIXART = {"sample_size": 128, "caption_channels": 4096, "interpolation_scale": 2, "use_additional_conditions": False}

# Settings are those of the model's folder on the hub, sizes those of its card or paper.
PUBLISHED = (
    # stable-diffusion-v1-5/stable-diffusion-v1-5; arXiv:2112.10752
    Published(
        name="Stable Diffusion 1.5",
        pipeline="StableDiffusionPipeline",
        network=("UNet2DConditionModel", {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}),
        parameters=0.86e9,
        resolution=512,
        told=_prompt(77, 768),
        scheduler=("DDIMScheduler", DDIM),
        vae=_kl(4, 0.18215),
        small=SMALL_UNET,
        missing=UNSAFE,
    ),
    # stabilityai/stable-diffusion-2-1
    Published(
        name="Stable Diffusion 2.1",
        pipeline="StableDiffusionPipeline",
        network=(
            "UNet2DConditionModel",
            {
                "sample_size": 96,
                "cross_attention_dim": 1024,
                "attention_head_dim": (5, 10, 20, 20),
                "use_linear_projection": True,
            },
        ),
        parameters=0.87e9,
        resolution=768,
        told=_prompt(77, 1024),
        scheduler=("DDIMScheduler", {**DDIM, "prediction_type": "v_prediction"}),
        vae=_kl(4, 0.18215),
        small={**SMALL_UNET, "attention_head_dim": (1, 2, 4, 4)},
        missing=UNSAFE,
    ),
    # stabilityai/stable-diffusion-xl-base-1.0; arXiv:2307.01952
    Published(
        name="SDXL",
        pipeline="StableDiffusionXLPipeline",
        network=("UNet2DConditionModel", SDXL),
        parameters=2.57e9,
        resolution=1024,
        told=_prompt(77, 2048, 1280),
        scheduler=("EulerDiscreteScheduler", SD),
        vae=_kl(4, 0.13025),
        small={
            "block_out_channels": (64, 128, 256),
            "layers_per_block": 1,
            "attention_head_dim": (1, 2, 4),
            "transformer_layers_per_block": (1, 2, 3),
        },
        missing=TWO,
    ),
    # stabilityai/stable-diffusion-3-medium-diffusers; arXiv:2403.03206
    Published(
        name="SD3 medium",
        pipeline="StableDiffusion3Pipeline",
        network=("SD3Transformer2DModel", {**SD3, "joint_attention_dim": 4096, "pooled_projection_dim": 2048}),
        parameters=2.03e9,
        resolution=1024,
        told=_prompt(333, 4096, 2048),
        scheduler=("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
        vae=_kl(16, 1.5305, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
        small={
            "num_layers": 6,
            "num_attention_heads": 6,
            "caption_projection_dim": 384,
            "pos_embed_max_size": 48,
        },
        missing=(*TWO, "text_encoder_3", "tokenizer_3"),
    ),
    # black-forest-labs/FLUX.1-dev
    Published(
        name="Flux.1-dev",
        pipeline="FluxPipeline",
        network=("FluxTransformer2DModel", {"guidance_embeds": True}),
        parameters=11.9e9,
        resolution=1024,
        told=_prompt(512, 4096, 768),
        scheduler=("FlowMatchEulerDiscreteScheduler", {"shift": 3.0, "use_dynamic_shifting": True}),
        vae=_kl(16, 0.3611, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
        small={"num_layers": 2, "num_single_layers": 4, "num_attention_heads": 3},
        missing=TWO,
    ),
    # PixArt-alpha/PixArt-Sigma-XL-2-1024-MS; arXiv:2403.04692
    Published(
        name="PixArt-Sigma XL",
        pipeline="PixArtSigmaPipeline",
        network=("PixArtTransformer2DModel", PIXART),
        parameters=0.61e9,
        resolution=1024,
        told={**_prompt(300, 4096), "prompt_attention_mask": (300,)},
        scheduler=("DPMSolverMultistepScheduler", DDPM),
        vae=_kl(4, 0.13025),
        small={"num_attention_heads": 8, "cross_attention_dim": 576, "num_layers": 6},
    ),
    # Efficient-Large-Model/Sana_1600M_1024px_diffusers; arXiv:2410.10629
    Published(
        name="Sana 1.6B",
        pipeline="SanaPipeline",
        network=("SanaTransformer2DModel", {"sample_size": 32}),
        parameters=1.6e9,
        resolution=1024,
        told={**_prompt(300, 2304), "prompt_attention_mask": (300,)},
        scheduler=(
            "DPMSolverMultistepScheduler",
            {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0},
        ),
        vae=("AutoencoderDC", DC),
        small={
            "num_attention_heads": 14,
            "num_cross_attention_heads": 4,
            "cross_attention_dim": 448,
            "num_layers": 8,
        },
        small_resolution=512,
    ),
    # facebook/DiT-XL-2-256; arXiv:2212.09748, whose 675 million embed time and class once: diffusers does so in each block
    Published(
        name="DiT-XL/2",
        pipeline="DiTPipeline",
        network=("DiTTransformer2DModel", {"sample_size": 32, "out_channels": 8}),
        parameters=0.75e9,
        resolution=256,
        told={"class_labels": ()},
        scheduler=("DDIMScheduler", {**DDPM, "clip_sample": False}),
        vae=_kl(4, 0.18215),
        small={"num_attention_heads": 6, "num_layers": 8},
        missing=(),
    ),
)
