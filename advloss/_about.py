"""What a run was built from, in plain data: for the first line of its log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from advloss import __version__
from advloss._judge import player_of
from advloss._signals import has_batch_norm

if TYPE_CHECKING:
    from advloss._adversary import Adversary


def describe(adversary: Adversary) -> dict[str, Any]:
    """Names and numbers that a log's reader needs (`Adversary.describe`)."""
    player = player_of(adversary.discriminator)
    group = adversary.optimizer.param_groups[0]
    return {
        "advloss": __version__,
        "discriminator": type(adversary.discriminator).__name__,
        "parameters": sum(p.numel() for p in player.parameters() if p.requires_grad),
        "batch_norm": has_batch_norm(player),
        "loss": type(adversary.loss).__name__,
        "regularizers": {
            name: {key: number for key in ("weight", "every") if _is_number(number := getattr(term, key, None))}
            for name, term in adversary.regularizers.items()
        },
        "augmentations": list(adversary.augmentations),
        "optimizer": {"name": type(adversary.optimizer).__name__, "lr": float(group["lr"])},
        "weight": adversary.weight,
        "samples": None if adversary._shape is None else list(adversary._shape),
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
