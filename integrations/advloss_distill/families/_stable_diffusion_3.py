"""Stable Diffusion 3 and 3.5 (arXiv:2403.03206)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from torch import Tensor, nn

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
