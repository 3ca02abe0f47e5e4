"""Sana (arXiv:2410.10629)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from torch import Tensor, nn

from advloss_distill._family import Family, bare, rescale_positions
from advloss_distill._pipelines import call_defaults
from advloss_distill._simulation import Conditions


@final
class Sana(Family):
    """A transformer with linear attention that predicts ``noise - x_0`` of latents compressed 32 times."""

    blocks = ("transformer_blocks.*",)
    predictions = ("flow",)
    takes = ("prompt_embeds", "prompt_attention_mask")
    tokens = 300
    widths = (("prompt_embeds", "caption_channels"),)
    breaks_in = ("fp16",)  # linear attention adds 1e-15 to what it divides by, which is 0 there

    def __init__(self, pipeline: Any, **options: Any) -> None:
        super().__init__(pipeline, **options)
        if pipeline.transformer.config.guidance_embeds:
            raise self._distilled("its guidance is an input, as in Sana-Sprint")

    def output(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Conditions) -> Tensor:
        self.check(condition)
        return network(
            noisy,
            encoder_hidden_states=condition["prompt_embeds"],
            encoder_attention_mask=condition["prompt_attention_mask"],
            timestep=timesteps * bare(network).config.timestep_scale,
        ).sample

    def encode(self, pipeline: Any, prompts: Sequence[str] | None, **options: Any) -> Conditions:
        options = {"device": self._device(pipeline), **call_defaults(pipeline), **options}
        embeds, mask, _, _ = pipeline.encode_prompt(prompts, False, **options)
        return {"prompt_embeds": embeds, "prompt_attention_mask": mask}

    def encode_unwanted(self, pipeline: Any, prompts: Sequence[str]) -> Conditions:
        return self.encode(pipeline, prompts, complex_human_instruction=None)  # as its call encodes negative prompts

    def resized(self, student: Any) -> None:
        if student.config.interpolation_scale is not None:
            rescale_positions(student, student.patch_embed, self.shape[-1])
        super().resized(student)
