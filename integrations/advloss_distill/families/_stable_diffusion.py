"""Stable Diffusion 1.x, 2.x and XL: UNets that are told prompts by cross-attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn

from advloss_distill._family import Family, bare
from advloss_distill._simulation import Conditions

GUIDANCE = 256
"""Width of a guidance scale's embedding."""


class _UNet(Family):
    part = "unet"
    blocks = ("down_blocks.*", "mid_block", "up_blocks.*")
    predictions = ("epsilon", "v_prediction", "sample")

    def __init__(self, pipeline: Any, **options: Any) -> None:
        super().__init__(pipeline, **options)
        if pipeline.unet.config.get("time_cond_proj_dim") is not None:
            raise self._distilled("its UNet embeds a guidance scale, as latent consistency models do")

    def guided_student(self, teacher: nn.Module) -> nn.Module:
        """As latent consistency models have it: the pipeline's `guidance_scale` goes into the time embedding."""
        student: Any = super().student(teacher)
        with torch.device("meta"):
            told: Any = type(student).from_config(student.config, time_cond_proj_dim=GUIDANCE)
        projection = torch.zeros_like(told.time_embedding.cond_proj.weight, device=next(student.parameters()).device)
        told.load_state_dict({**student.state_dict(), "time_embedding.cond_proj.weight": projection}, assign=True)
        return told.train().requires_grad_(True)

    def _told(self, network: Any, condition: Conditions) -> dict[str, Tensor]:
        """The guidance scale as the pipelines embed it, for a network that takes it (arXiv:2310.04378)."""
        width = bare(network).config.time_cond_proj_dim
        if width is None or "guidance" not in condition:
            return {}
        frequencies = torch.exp(
            torch.arange(width // 2, device=condition["guidance"].device) * (-math.log(10_000) / (width // 2 - 1))
        )
        angles = 1000 * (condition["guidance"].float() - 1).unsqueeze(1) * frequencies
        return {"timestep_cond": torch.cat([angles.sin(), angles.cos()], 1).to(condition["prompt_embeds"].dtype)}

    def feature(self, output: Any) -> Tensor:
        return output if isinstance(output, Tensor) else output[0]  # down blocks give what skips to the up blocks, too


@final
class StableDiffusion(_UNet):
    """Stable Diffusion 1.x and 2.x (arXiv:2112.10752)."""

    takes = ("prompt_embeds",)
    widths = (("prompt_embeds", "cross_attention_dim"),)

    def output(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Conditions) -> Tensor:
        self.check(condition)
        return network(
            noisy, timesteps, encoder_hidden_states=condition["prompt_embeds"], **self._told(network, condition)
        ).sample

    def encode(self, pipeline: Any, prompts: Sequence[str] | None, **options: Any) -> Conditions:
        embeds, _ = pipeline.encode_prompt(prompts, self._device(pipeline), 1, False, **options)
        return {"prompt_embeds": embeds}


@final
class StableDiffusionXL(_UNet):
    """SDXL (arXiv:2307.01952). Sizes are told as its pipeline tells them: all of `resolution`, nothing cropped."""

    takes = ("prompt_embeds", "pooled_prompt_embeds")

    def output(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Conditions) -> Tensor:
        self.check(condition)
        pooled = condition["pooled_prompt_embeds"]
        side = float(self.resolution)
        sizes = torch.tensor([side, side, 0, 0, side, side], device=noisy.device, dtype=pooled.dtype)
        return network(
            noisy,
            timesteps,
            encoder_hidden_states=condition["prompt_embeds"],
            added_cond_kwargs={"text_embeds": pooled, "time_ids": sizes.expand(len(noisy), 6)},
            **self._told(network, condition),
        ).sample

    def encode(self, pipeline: Any, prompts: Sequence[str] | None, **options: Any) -> Conditions:
        embeds, _, pooled, _ = pipeline.encode_prompt(
            prompts, device=self._device(pipeline), do_classifier_free_guidance=False, **options
        )
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

    def example(self, network: Any, count: int = 1, tokens: int | None = None) -> Conditions:
        config, length = bare(network).config, self.tokens if tokens is None else tokens
        pooled = config.projection_class_embeddings_input_dim - 6 * config.addition_time_embed_dim
        return {
            "prompt_embeds": torch.zeros(count, length, config.cross_attention_dim),
            "pooled_prompt_embeds": torch.zeros(count, pooled),
        }

    def negative(self, pipeline: Any, count: int) -> dict[str, Any]:
        nothing = super().negative(pipeline, count)
        zeros = pipeline.config.force_zeros_for_empty_prompt
        return {name: torch.zeros_like(value) for name, value in nothing.items()} if zeros else nothing
