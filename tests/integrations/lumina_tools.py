"""A stranger's family, and its hook: Lumina 2, whose network reads how many tokens each prompt has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Pipeline, Lumina2Transformer2DModel
from pipeline_tools import TEXT, TOKENS, tiny_gemma, tiny_tokenizer, tiny_vae
from torch import Tensor, nn

from advloss_distill import Conditions, Family, FamilySpec, call_defaults, hookimpl

ENTRY = "[advloss_distill]\nlumina = lumina_tools\n"


@hookimpl
def advloss_distill_families() -> list[FamilySpec]:
    return [FamilySpec(name="lumina", pipelines=("Lumina2Pipeline",), target="lumina_tools:Lumina", summary="Lumina.")]


class Lumina(Family):
    blocks = ("layers.*",)
    predictions = ("flow",)
    takes = ("prompt_embeds", "prompt_attention_mask")
    tokens = 256
    widths = (("prompt_embeds", "cap_feat_dim"),)

    def output(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Conditions) -> Tensor:
        return -network(
            hidden_states=noisy,
            timestep=1 - timesteps / 1000,
            encoder_hidden_states=condition["prompt_embeds"],
            encoder_attention_mask=condition["prompt_attention_mask"],
        ).sample

    def encode(self, pipeline: Any, prompts: Sequence[str] | None, **options: Any) -> Conditions:
        options = {**call_defaults(pipeline), **options}
        embeds, mask, _, _ = pipeline.encode_prompt(prompts, do_classifier_free_guidance=False, **options)
        return {"prompt_embeds": embeds, "prompt_attention_mask": mask}


class LuminaOfNoWidth(Lumina):
    """Whose author left out what is only for the comfort of its users."""

    widths = ()


class LuminaOfItsOwnMind(Lumina):
    """Whose answer depends on what its weights make of the samples."""

    def output(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Conditions) -> Tensor:
        output = super().output(network, noisy, timesteps, condition)
        return output if output.mean().item() < 1 else -output


def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hook is found, as if a distribution of it were installed."""
    info = folder / "advloss_lumina-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: advloss-lumina\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(ENTRY)
    monkeypatch.syspath_prepend(folder)


def tiny_lumina() -> Lumina2Pipeline:
    torch.manual_seed(0)
    transformer = Lumina2Transformer2DModel(
        sample_size=8,
        in_channels=4,
        hidden_size=16,
        num_layers=2,
        num_attention_heads=2,
        num_kv_heads=1,
        multiple_of=16,
        scaling_factor=1.0,
        axes_dim_rope=[4, 2, 2],
        cap_feat_dim=TEXT,
    )
    return Lumina2Pipeline(
        transformer=transformer,
        vae=tiny_vae(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=tiny_gemma(),
        tokenizer=tiny_tokenizer(512),
    )


def lumina_conditions(count: int) -> Conditions:
    """Prompts of two tokens and more."""
    mask = (torch.arange(TOKENS) < torch.randint(2, TOKENS + 1, (count, 1))).long()
    return {"prompt_embeds": torch.randn(count, TOKENS, TEXT), "prompt_attention_mask": mask}
