"""Optimizers of a student by name."""

from __future__ import annotations

import torch

from advloss import PluginError


def optimizer_of(name: str) -> type[torch.optim.Optimizer]:
    """``"adamw"``, or bitsandbytes' ``"adamw-8bit"`` and ``"paged-adamw-8bit"``, whose moments may leave a full device.

    Raises:
        PluginError: bitsandbytes is not installed.
    """
    if name == "adamw":
        return torch.optim.AdamW
    try:
        from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit
    except ImportError as error:
        raise PluginError(f"--optimizer {name} needs bitsandbytes: pip install bitsandbytes") from error
    chosen: type[torch.optim.Optimizer] = PagedAdamW8bit if name.startswith("paged") else AdamW8bit
    return chosen
