"""Pipelines of every family in miniature: from configurations, offline, without text encoders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    DDIMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    PixArtSigmaPipeline,
    PixArtTransformer2DModel,
    SanaPipeline,
    SanaTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from advloss_distill import Conditions, Family, family_of

TOKENS, TEXT, POOLED, CLASSES = 5, 16, 12, 10
NO_TEXT = {"text_encoder": None, "tokenizer": None}


@dataclass(frozen=True)
class Miniature:
    """Attributes:
    make: builds the pipeline; keywords replace components.
    missing: components that a reload has to be told are None.
    side: of its images.
    call: further arguments of the pipeline's call.
    """

    make: Callable[..., Any]
    missing: dict[str, None] = field(default_factory=dict)
    side: int = 16
    call: dict[str, Any] = field(default_factory=dict)


def tiny_vae(latents: int = 4, **options: Any) -> AutoencoderKL:
    """Compresses images twice a side."""
    return AutoencoderKL(
        block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=latents,
        norm_num_groups=4,
        layers_per_block=1,
        sample_size=16,
        **options,
    )


def tiny_unet(**options: Any) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        **{
            "sample_size": 8,
            "block_out_channels": (8, 16),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "attention_head_dim": 4,
            "cross_attention_dim": TEXT,
            **options,
        }
    )


def stable_diffusion(**parts: Any) -> StableDiffusionPipeline:
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1, clip_sample=False
    )
    return StableDiffusionPipeline(
        **{
            "vae": tiny_vae(),
            "unet": tiny_unet(),
            "scheduler": scheduler,
            "safety_checker": None,
            "feature_extractor": None,
            "requires_safety_checker": False,
            **NO_TEXT,
            **parts,
        }
    )


def stable_diffusion_xl(**parts: Any) -> StableDiffusionXLPipeline:
    unet = tiny_unet(
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + POOLED,
        transformer_layers_per_block=(1, 2),
        use_linear_projection=True,
    )
    return StableDiffusionXLPipeline(
        **{
            "vae": tiny_vae(),
            "unet": unet,
            "scheduler": EulerDiscreteScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012),
            **NO_TEXT,
            "text_encoder_2": None,
            "tokenizer_2": None,
            **parts,
        }
    )


def stable_diffusion_3(**parts: Any) -> StableDiffusion3Pipeline:
    transformer = SD3Transformer2DModel(
        sample_size=8,
        in_channels=8,
        out_channels=8,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        caption_projection_dim=16,
        pooled_projection_dim=POOLED,
        pos_embed_max_size=8,
    )
    return StableDiffusion3Pipeline(
        **{
            "vae": tiny_vae(8, shift_factor=0.0609),
            "transformer": transformer,
            "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0),
            **NO_TEXT,
            **dict.fromkeys(("text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")),
            **parts,
        }
    )


def flux(guidance_embeds: bool = True, **parts: Any) -> FluxPipeline:
    transformer = FluxTransformer2DModel(
        in_channels=32,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=TEXT,
        pooled_projection_dim=POOLED,
        guidance_embeds=guidance_embeds,
        axes_dims_rope=(4, 4, 8),
    )
    pipeline = FluxPipeline(
        **{
            "vae": tiny_vae(8, shift_factor=0.1159),
            "transformer": transformer,
            "scheduler": FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
            **NO_TEXT,
            "text_encoder_2": None,
            "tokenizer_2": None,
            **parts,
        }
    )
    pipeline.default_sample_size = 8
    return pipeline


def pixart(**parts: Any) -> PixArtSigmaPipeline:
    transformer = PixArtTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        cross_attention_dim=16,
        caption_channels=TEXT,
        sample_size=8,
        use_additional_conditions=False,
    )
    return PixArtSigmaPipeline(
        **{
            "vae": tiny_vae(),
            "transformer": transformer,
            "scheduler": DPMSolverMultistepScheduler(beta_schedule="linear", beta_start=0.0001, beta_end=0.02),
            **NO_TEXT,
            **parts,
        }
    )


def sana(**parts: Any) -> SanaPipeline:
    transformer = SanaTransformer2DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=8,
        cross_attention_dim=16,
        caption_channels=TEXT,
        sample_size=8,
        timestep_scale=0.5,
    )
    vae = AutoencoderDC(
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
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        decoder_norm_types="rms_norm",
        decoder_act_fns="silu",
        scaling_factor=0.41407,
    )
    scheduler = DPMSolverMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0)
    return SanaPipeline(**{"vae": vae, "transformer": transformer, "scheduler": scheduler, **NO_TEXT, **parts})


def dit(**parts: Any) -> DiTPipeline:
    transformer = DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=2,
        sample_size=8,
        num_embeds_ada_norm=1000,
    )
    return DiTPipeline(
        **{
            "vae": tiny_vae(),
            "transformer": transformer,
            "scheduler": DDIMScheduler(beta_schedule="linear", beta_start=0.0001, beta_end=0.02, clip_sample=False),
            **parts,
        }
    )


SIZE = {"height": 16, "width": 16}
SECOND = dict.fromkeys(("text_encoder_2", "tokenizer_2"))
THIRD = dict.fromkeys(("text_encoder_3", "tokenizer_3"))
UNSAFE = dict.fromkeys(("safety_checker", "feature_extractor"))
SANA_SIZE = {"height": 32, "width": 32, "use_resolution_binning": False}
FAMILIES: dict[str, Miniature] = {
    "stable-diffusion": Miniature(stable_diffusion, {**NO_TEXT, **UNSAFE}, call=SIZE),
    "stable-diffusion-xl": Miniature(stable_diffusion_xl, {**NO_TEXT, **SECOND}, call=SIZE),
    "stable-diffusion-3": Miniature(stable_diffusion_3, {**NO_TEXT, **SECOND, **THIRD}, call=SIZE),
    "flux": Miniature(flux, {**NO_TEXT, **SECOND}, call=SIZE),
    "pixart": Miniature(pixart, NO_TEXT, call={**SIZE, "use_resolution_binning": False}),
    "sana": Miniature(sana, NO_TEXT, 32, SANA_SIZE),
    "dit": Miniature(dit),
}


def tiny_pipeline(name: str, **parts: Any) -> Any:
    """A pipeline of one family with weights that let every input matter (zero-initialized layers are filled)."""
    torch.manual_seed(0)
    pipeline = FAMILIES[name].make(**parts)
    pipeline.set_progress_bar_config(disable=True)
    network = pipeline.unet if name.startswith("stable-diffusion") and name[-1] != "3" else pipeline.transformer
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.ndim > 1 and not parameter.any():
                parameter.normal_(std=0.05)
    network.eval()
    return pipeline


def tiny_family(name: str, **options: Any) -> tuple[Any, Family]:
    """The same, and its family."""
    pipeline = tiny_pipeline(name)
    return pipeline, family_of(pipeline, **{"resolution": FAMILIES[name].side, **options})


def tiny_conditions(family: Family, count: int) -> Conditions:
    """What a call needs, at random."""
    draws: dict[str, Callable[[], Tensor]] = {
        "prompt_embeds": lambda: torch.randn(count, TOKENS, TEXT),
        "pooled_prompt_embeds": lambda: torch.randn(count, POOLED),
        "prompt_attention_mask": lambda: (torch.arange(TOKENS) < torch.randint(2, TOKENS + 1, (count, 1))).long(),
        "class_labels": lambda: torch.randint(CLASSES, (count,)),
    }
    return {name: draws[name]() for name in family.takes}


WORDS = (
    "<pad>",
    "<bos>",
    "<eos>",
    "<unk>",
    "a",
    "red",
    "fox",
    "House",
    "house",
    "in",
    "the",
    "snow",
    "given",
    "user",
    "prompt",
)


def tiny_tokenizer(length: int) -> PreTrainedTokenizerFast:
    """A token a word; begins and ends a text."""
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A <eos>", special_tokens=[("<bos>", 1), ("<eos>", 2)]
    )
    special = {name: f"<{name.split('_')[0]}>" for name in ("pad_token", "bos_token", "eos_token", "unk_token")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=length, **special)


def tiny_clip(width: int, pooled: int | None = None) -> CLIPTextModel | CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=len(WORDS),
        hidden_size=width,
        intermediate_size=16,
        projection_dim=pooled or width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=12,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return (CLIPTextModelWithProjection if pooled else CLIPTextModel)(config).eval()


def tiny_t5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=len(WORDS), d_model=TEXT, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    ).eval()


def tiny_gemma() -> Gemma2Model:
    config = Gemma2Config(
        vocab_size=len(WORDS),
        hidden_size=TEXT,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    return Gemma2Model(config).eval()


ENCODERS: dict[str, Callable[[], list[Any]]] = {
    "stable-diffusion": lambda: [tiny_clip(TEXT)],
    "stable-diffusion-xl": lambda: [tiny_clip(TEXT // 2), tiny_clip(TEXT // 2, POOLED)],
    "stable-diffusion-3": lambda: [tiny_clip(TEXT // 2, POOLED // 2), tiny_clip(TEXT // 2, POOLED // 2), tiny_t5()],
    "flux": lambda: [tiny_clip(POOLED), tiny_t5()],
    "pixart": lambda: [tiny_t5()],
    "sana": lambda: [tiny_gemma()],
}


def tiny_text(name: str) -> dict[str, Any]:
    """Text encoders of a family and their tokenizers, from configurations: parts of `tiny_pipeline`."""
    torch.manual_seed(1)
    parts: dict[str, Any] = {}
    for i, encoder in enumerate(ENCODERS[name](), 1):
        end = "" if i == 1 else f"_{i}"
        length = 12 if isinstance(encoder, (CLIPTextModel, CLIPTextModelWithProjection)) else 512
        parts |= {f"text_encoder{end}": encoder, f"tokenizer{end}": tiny_tokenizer(length)}
    return parts
