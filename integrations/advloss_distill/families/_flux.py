"""Flux.1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from advloss import OptionError
from advloss_distill._family import Family, bare
from advloss_distill._guidance import check_scale
from advloss_distill._simulation import Conditions


@final
class Flux(Family):
    """A transformer that predicts ``noise - x_0`` of latents packed to tokens, 2 x 2 to one.

    Its teacher has guidance distilled into an input. A student (`student`, and `adapted`, until its adapter is loaded into
    the teacher) has the teacher's answer at `guidance` built into its time embedding, and that input no more: whatever
    `guidance_scale` a pipeline is called with, it is the same.

    Args:
        guidance: that the teacher is told.
    """

    blocks = ("transformer_blocks.*", "single_transformer_blocks.*")
    predictions = ("flow",)
    takes = ("prompt_embeds", "pooled_prompt_embeds")
    tokens = 512
    widths = (("prompt_embeds", "joint_attention_dim"), ("pooled_prompt_embeds", "pooled_projection_dim"))

    def __init__(self, pipeline: Any, *, guidance: float = 3.5, **options: Any) -> None:
        super().__init__(pipeline, **options)
        check_scale(guidance)
        self.guidance = guidance
        told = pipeline.transformer.config.guidance_embeds
        if not told and not pipeline.scheduler.config.use_dynamic_shifting:
            raise self._distilled(
                "it has neither a guidance input nor a schedule that depends on the resolution, as schnell"
            )
        self.adapter_guidance = guidance if told else 0.0

    def output(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Conditions) -> Tensor:
        self.check(condition)
        text, (height, width) = condition["prompt_embeds"], noisy.shape[-2:]
        rows, columns = torch.meshgrid(
            *(torch.arange(side // 2, device=noisy.device, dtype=noisy.dtype) for side in (height, width)),
            indexing="ij",
        )
        guidance = noisy.new_full((len(noisy),), self.guidance) if bare(network).config.guidance_embeds else None
        output = network(
            hidden_states=self.pack(noisy),
            timestep=timesteps.to(noisy.dtype) / 1000,
            guidance=guidance,
            pooled_projections=condition["pooled_prompt_embeds"],
            encoder_hidden_states=text,
            txt_ids=text.new_zeros(text.shape[1], 3),
            img_ids=torch.stack([torch.zeros_like(rows), rows, columns], -1).flatten(0, 1),
        ).sample
        return self.unpack(output)

    def student(self, teacher: nn.Module) -> nn.Module:
        """A trainable copy without the guidance input, whose answer at any guidance is the teacher's at `guidance`."""
        student: Any = super().student(teacher)
        if not student.config.guidance_embeds:
            return student
        embedding = student.time_text_embed
        with torch.no_grad():
            bias = embedding.timestep_embedder.linear_2.bias
            told = embedding.time_proj(bias.new_full((1,), 1000 * self.guidance))
            bias += embedding.guidance_embedder(told.to(bias.dtype))[0]
            state = {name: value for name, value in student.state_dict().items() if ".guidance_embedder." not in name}
        with torch.device("meta"):
            plain: nn.Module = type(student).from_config({**student.config, "guidance_embeds": False})
        plain.load_state_dict(state, assign=True)
        return plain.train().requires_grad_(True)

    def encode(self, pipeline: Any, prompts: Sequence[str] | None, **options: Any) -> Conditions:
        embeds, pooled, _ = pipeline.encode_prompt(prompts, None, device=self._device(pipeline), **options)
        return {"prompt_embeds": embeds, "pooled_prompt_embeds": pooled}

    def negative(self, pipeline: Any, count: int) -> dict[str, Any]:
        return {}  # guidance is an input

    def nothing(self, pipeline: Any, prompt: str = "") -> Conditions:
        raise OptionError(
            f"guidance of a {self.name} is an input of its network, not a second evaluation: family_of(pipeline, guidance=...) "
            "chooses it, and methods take a scale of 1 and no negative prompt"
        )

    def pack(self, latents: Tensor) -> Tensor:
        return pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)

    def unpack(self, packed: Tensor) -> Tensor:
        side = self.shape[-1] // 2
        return pixel_shuffle(packed.transpose(1, 2).unflatten(2, (side, side)), 2)

    def _channels(self, network: Any) -> int:
        return int(network.config.in_channels) // 4
