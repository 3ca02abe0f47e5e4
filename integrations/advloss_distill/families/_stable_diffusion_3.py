"""Stable Diffusion 3 and 3.5 (arXiv:2403.03206)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from torch import Tensor, nn

from advloss import OptionError
from advloss_distill._family import Family
from advloss_distill._simulation import Conditions


@final
class StableDiffusion3(Family):
    """A transformer of text and image tokens that predicts ``noise - x_0``."""

    blocks = ("transformer_blocks.*",)
    predictions = ("flow",)
    takes = ("prompt_embeds", "pooled_prompt_embeds")
    tokens = 77 + 256  # CLIP's and T5's
    widths = (("prompt_embeds", "joint_attention_dim"), ("pooled_prompt_embeds", "pooled_projection_dim"))

    def __init__(self, pipeline: Any, *, resolution: int | None = None, **options: Any) -> None:
        super().__init__(pipeline, resolution=resolution, **options)
        config, factor = pipeline.transformer.config, self.resolution // self.shape[-1]
        most = config.pos_embed_max_size * config.patch_size * factor
        if self.resolution > most:
            raise OptionError(f"resolution={resolution}; this {self.name} makes images of {most} pixels a side at most")

    def output(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Conditions) -> Tensor:
        self.check(condition)
        return network(
            hidden_states=noisy,
            timestep=timesteps,
            encoder_hidden_states=condition["prompt_embeds"],
            pooled_projections=condition["pooled_prompt_embeds"],
        ).sample

    def encode(self, pipeline: Any, prompts: Sequence[str] | None, **options: Any) -> Conditions:
        embeds, _, pooled, _ = pipeline.encode_prompt(
            prompts, None, None, device=self._device(pipeline), do_classifier_free_guidance=False, **options
        )
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}
