"""The hook of our own families."""

from __future__ import annotations

from advloss_distill._family_spec import FamilySpec
from advloss_distill.hookspecs import hookimpl


@hookimpl
def advloss_distill_families() -> list[FamilySpec]:
    def family(name: str, pipeline: str, target: str, summary: str) -> FamilySpec:
        return FamilySpec(
            name=name, pipelines=(pipeline,), target=f"advloss_distill.families.{target}", summary=summary
        )

    return [
        family(
            "stable-diffusion",
            "StableDiffusionPipeline",
            "_stable_diffusion:StableDiffusion",
            "Stable Diffusion 1.x and 2.x: a UNet told the prompt by cross-attention.",
        ),
        family(
            "stable-diffusion-xl",
            "StableDiffusionXLPipeline",
            "_stable_diffusion:StableDiffusionXL",
            "SDXL: the same, told a pooled prompt and sizes, too.",
        ),
        family(
            "stable-diffusion-3",
            "StableDiffusion3Pipeline",
            "_stable_diffusion_3:StableDiffusion3",
            "SD3 and 3.5: a transformer of text and image tokens, rectified flow.",
        ),
        family("flux", "FluxPipeline", "_flux:Flux", "Flux: packed latents, rectified flow, guidance as an input."),
        family("pixart", "PixArtSigmaPipeline", "_pixart:PixArt", "PixArt-Sigma: a transformer that predicts noise."),
        family("sana", "SanaPipeline", "_sana:Sana", "Sana: linear attention on strongly compressed latents, flow."),
        family("dit", "DiTPipeline", "_dit:DiT", "DiT: classes in place of prompts."),
    ]
