"""PixArt-Sigma (arXiv:2403.04692)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

from torch import Tensor, nn

from advloss_distill._family import Family, rescale_positions
from advloss_distill._pipelines import call_defaults
from advloss_distill._simulation import Conditions


@final
class PixArt(Family):
    """A transformer that predicts noise, and a variance that is left out here."""

    blocks = ("transformer_blocks.*",)
    predictions = ("epsilon",)
    takes = ("prompt_embeds", "prompt_attention_mask")
    tokens = 300
    widths = (("prompt_embeds", "caption_channels"),)

    def output(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Conditions) -> Tensor:
        self.check(condition)
        output = network(
            noisy,
            encoder_hidden_states=condition["prompt_embeds"],
            encoder_attention_mask=condition["prompt_attention_mask"],
            timestep=timesteps,
            added_cond_kwargs={"resolution": None, "aspect_ratio": None},
        ).sample
        return output[:, : noisy.shape[1]]

    def encode(self, pipeline: Any, prompts: Sequence[str] | None, **options: Any) -> Conditions:
        options = {"device": self._device(pipeline), **call_defaults(pipeline), **options}
        embeds, mask, _, _ = pipeline.encode_prompt(prompts, False, **options)
        return {"prompt_embeds": embeds, "prompt_attention_mask": mask}

    def resized(self, student: Any) -> None:
        rescale_positions(student, student.pos_embed, self.shape[-1])
        student.register_to_config(use_additional_conditions=student.use_additional_conditions)  # else the size decides
        super().resized(student)
