"""What a run was built from, in plain data: for the first line of its log."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from advloss import __version__
from advloss._judge import player_of
from advloss._signals import has_batch_norm

if TYPE_CHECKING:
    from advloss._adversary import Adversary


def describe(adversary: Adversary) -> dict[str, Any]:
    """Names and numbers that a log's reader needs (`Adversary.describe`); the learning rate before any schedule."""
    player = player_of(adversary.discriminator)
    group = adversary.optimizer.param_groups[0]
    return {
        "advloss": __version__,
        "discriminator": type(adversary.discriminator).__name__,
        "parameters": sum(p.numel() for p in player.parameters() if p.requires_grad),
        "batch_norm": has_batch_norm(player),
        "loss": type(adversary.loss).__name__,
        "game": _game(adversary.loss),
        "regularizers": {
            name: {key: number for key in ("weight", "every") if _is_number(number := getattr(term, key, None))}
            for name, term in adversary.regularizers.items()
        },
        "augmentations": list(adversary.augmentations),
        "optimizer": {"name": type(adversary.optimizer).__name__, "lr": float(group.get("initial_lr", group["lr"]))},
        "weight": adversary.weight,
        "samples": None if (shape := adversary._players.shape) is None else list(shape),
    }


def _game(loss: Any) -> dict[str, bool]:
    """What a loss makes of logits, found by asking it; empty for one that cannot be asked so."""
    real, fake = torch.ones(4), -torch.ones(4)
    found_out = torch.full((4,), -10.0, requires_grad=True)
    try:
        with torch.random.fork_rng(devices=[]), torch.enable_grad():
            equal = loss.discriminator(real, fake)
            shifted = loss.discriminator(real + 3, fake + 3)
            apart = loss.discriminator(1e4 * real, 1e4 * fake)
            (slope,) = torch.autograd.grad(loss.generator(found_out, 10 * real), [found_out])
    except Exception:  # a loss of the user's own, for logits of another kind
        return {}
    return {
        "differences_only": bool(torch.isclose(equal, shifted)),  # the level of logits says nothing
        "unbounded": bool(apart < -1e3),  # nothing but the critic's slope holds it
        "vanishing": bool(slope.abs().sum() < 1e-3),  # no slope where fakes are found out
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
