"""Sana (arXiv:2410.10629)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from torch import Tensor, nn

from advloss_distill._family import Family, bare
from advloss_distill._simulation import Conditions


@final
class Sana(Family):
    """A transformer with linear attention that predicts ``noise - x_0`` of latents compressed 32 times."""

    blocks = ("transformer_blocks.*",)
    predictions = ("flow",)
    takes = ("prompt_embeds", "prompt_attention_mask")

    def __init__(self, pipeline: Any, **options: Any) -> None:
        super().__init__(pipeline, **options)
        self._refuse(bool(pipeline.transformer.config.guidance_embeds), "its guidance is an input, as in Sana-Sprint")

    def output(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Conditions) -> Tensor:
        self.check(condition)
        return network(
            noisy,
            encoder_hidden_states=condition["prompt_embeds"],
            encoder_attention_mask=condition["prompt_attention_mask"],
            timestep=timesteps * bare(network).config.timestep_scale,
        ).sample

    def encode(self, pipeline: Any, prompts: Sequence[str] | None, **options: Any) -> Conditions:
        embeds, mask, _, _ = pipeline.encode_prompt(prompts, False, device=self._device(pipeline), **options)
        return {"prompt_embeds": embeds, "prompt_attention_mask": mask}
