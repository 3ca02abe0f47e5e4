"""What families ask of diffusers pipelines: their parts, the arguments of their calls, and whether they are distilled already."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from advloss import OptionError
from advloss_distill._guidance import check_scale

OF_STUDENTS = ("LCMScheduler", "TCDScheduler", "SCMScheduler", "FlowMatchLCMScheduler")


def check_text_encoders(pipeline: Any) -> None:
    """Raise OptionError where prompts cannot be encoded, because the pipeline was saved without text encoders."""
    encoders = {name: part for name, part in pipeline.components.items() if name.startswith("text_encoder")}
    if encoders and not any(encoders.values()):
        raise OptionError(
            f"this {type(pipeline).__name__} has no text encoder, and prompts (for guidance the empty one) have to be encoded: "
            "load one that has, or give embeddings and no guidance"
        )


def check_vae(vae: Any, name: str, what: str) -> None:
    """Raise OptionError where the pipeline `name` was loaded without its VAE.

    Args:
        what: needs it, in words.
    """
    if not isinstance(vae, nn.Module):
        raise OptionError(f"this {name} was loaded without its VAE, and {what}")


def vae_for_images(pipeline: Any) -> Any:
    """What encodes images; OptionError where the pipeline was loaded without it."""
    vae = getattr(pipeline, "vae", None)
    check_vae(
        vae, type(pipeline).__name__, "images are encoded by it: load it, too, or give latents that were made before"
    )
    return vae


def call_defaults(pipeline: Any) -> dict[str, Any]:
    """Options of `encode_prompt` whose defaults are others in the pipeline's call: with them both encode alike."""
    own, call = (inspect.signature(way).parameters for way in (pipeline.encode_prompt, pipeline.__call__))
    return {
        name: call[name].default
        for name, option in own.items()
        if name in call and option.default is not option.empty and option.default != call[name].default
    }


def call_size(pipeline: Any, side: int) -> dict[str, Any]:
    """Arguments of the call; a size that the paper does not list would else become another ("binning")."""
    size = {"height": side, "width": side, "use_resolution_binning": False}
    return {name: value for name, value in size.items() if name in inspect.signature(pipeline.__call__).parameters}


def sign_of_a_student(scheduler: Any) -> str:
    """What a scheduler has that distilled models come with; empty where there is nothing."""
    name, config = type(scheduler).__name__, scheduler.config
    if name in OF_STUDENTS:
        return f"its scheduler is a {name}"
    if config.get("stochastic_sampling"):
        return f"its {name} puts fresh noise between two steps, as those of students do"
    trailing = config.get("timestep_spacing") == "trailing" and config.get("prediction_type") == "epsilon"
    if name.startswith("Euler") and trailing:
        return f"its {name} takes timesteps from the end, as SD-Turbo and SDXL-Turbo do"
    return ""


def compression(pipeline: Any, vae: Any) -> int:
    """Pixels a side for one latent."""
    widths = None if vae is None else vae.config.get("block_out_channels")
    return int(getattr(pipeline, "vae_scale_factor", 2 ** (len(widths) - 1) if widths else 8))


def own_guidance(pipeline: Any) -> float:
    """The scale that a pipeline's call takes unasked: 7.5 for Stable Diffusion, 3.5 for Flux."""
    return float(inspect.signature(type(pipeline).__call__).parameters["guidance_scale"].default)


def check_sampling(pipeline: Any, guidance_scale: float, steps: int) -> None:
    """Raise OptionError unless a pipeline can sample with this scale, in so many steps."""
    check_scale(guidance_scale, "guidance_scale")
    most = pipeline.scheduler.config.num_train_timesteps
    if not 1 <= steps <= most:
        raise OptionError(
            f"{steps} steps of sampling (--teacher-steps): this {type(pipeline).__name__} has 1 to {most}"
        )
