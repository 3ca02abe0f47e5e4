"""Loading a teacher by name."""

from __future__ import annotations

from typing import Any

from diffusers import DiffusionPipeline

from advloss import PluginError


def load_pipeline(name: str, **options: Any) -> Any:
    """A diffusers pipeline by its name on the hub or its folder, from safetensors alone, on the CPU.

    Components that it was saved without (text encoders, a safety checker) are None.

    Args:
        options: of `DiffusionPipeline.from_pretrained`, such as `torch_dtype` or `revision`.

    Raises:
        PluginError: it cannot be loaded.
    """
    try:
        index = DiffusionPipeline.load_config(name, **{k: v for k, v in options.items() if k in ("revision", "token")})
        absent = {part: None for part, home in index.items() if isinstance(home, (list, tuple)) and home[0] is None}
        return DiffusionPipeline.from_pretrained(name, use_safetensors=True, **{**absent, **options})
    except (OSError, ValueError, AttributeError, ImportError) as error:
        raise PluginError(
            f"the pipeline {name!r} could not be loaded: {type(error).__name__}: {' '.join(str(error).split())[:300]} - give "
            "a folder of diffusers' format (one that has model_index.json), or a name on the hub"
        ) from error
