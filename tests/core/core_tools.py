"""Small components, and snapshots that are compared bit by bit."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

import advloss

# Every discriminator of the catalogue, as small as it gets: options, and the shape of one sample.
SMALL: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "dcgan": ({"width": 4, "resolution": 8}, (3, 8, 8)),
    "detail": ({"width": 4}, (3, 8, 8)),
    "dino": (
        {"backbone": "test_vit", "pretrained": False, "resolution": 32, "blocks": (0, 1)},
        (3, 32, 32),
    ),
    "minibatch": ({"discriminator": ("mlp", {"width": 8}), "kernels": 4}, (2,)),
    "mlp": ({"in_features": 2, "width": 8, "norm": "spectral"}, (2,)),
    "multiscale": ({"discriminator": ("patch", {"width": 4, "depth": 1}), "scales": 2}, (3, 16, 16)),
    "patch": ({"width": 4, "depth": 1}, (3, 8, 8)),
    "pixel-unshuffle": ({"discriminator": ("patch", {"width": 4, "depth": 1})}, (3, 16, 16)),
    "projected": (
        {"backbone": "test_efficientnet", "pretrained": False, "resolution": 64, "width": 8},
        (3, 64, 64),
    ),
    "projection": ({"width": 4, "resolution": 8, "num_classes": 3}, (3, 8, 8)),
    "r3gan": ({"width": 16, "resolution": 8}, (3, 8, 8)),
    "spectral-norm": ({"width": 4, "resolution": 8}, (3, 8, 8)),
    "stylegan2": ({"width": 4, "resolution": 8}, (3, 8, 8)),
    "unet": ({"width": 4}, (3, 8, 8)),
    "vgg": ({"width": 4, "resolution": 8}, (3, 8, 8)),
}
FROZEN_FEATURES = ("dino", "projected")


def built_in(kind: Any) -> list[str]:
    """Names of the components of this kind that advloss itself brings."""
    return [row.name for row in advloss.list_components(kind) if row.distribution.startswith("advloss ")]


def small(name: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    return advloss.create_discriminator(name, **SMALL[name][0]).to(dtype)


def samples(name: str, count: int = 4, dtype: torch.dtype = torch.float32) -> Tensor:
    """Random samples in [-1, 1] for `small(name)`."""
    return torch.rand((count, *SMALL[name][1]), dtype=dtype) * 2 - 1


def condition_for(name: str, count: int = 4) -> Tensor | None:
    return torch.arange(count) % 3 if "num_classes" in SMALL[name][0] else None


def patch(dtype: torch.dtype = torch.float64, **options: Any) -> nn.Module:
    """A PatchGAN of a few hundred parameters, for samples of 8 x 8; without normalization unless said."""
    return advloss.create_discriminator("patch", **{"width": 4, "depth": 1, "norm": "none", **options}).to(dtype)


def images(count: int = 4, side: int = 8, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(count, 3, side, side, dtype=dtype) * 2 - 1


def snapshot(adversary: advloss.Adversary) -> dict[str, Any]:
    """A copy of everything that an adversary owns, and of torch's global random state."""
    modules = {"discriminator": adversary.discriminator, **adversary.augmentations}
    modules.update({f"regularizer {n}": r for n, r in adversary.regularizers.items() if isinstance(r, nn.Module)})
    state: dict[str, Any] = {"torch": torch.get_rng_state()}
    for name, module in modules.items():
        state[name] = {
            "parameters": dict(module.named_parameters()),
            "gradients": {n: p.grad for n, p in module.named_parameters()},
            "requires_grad": {n: p.requires_grad for n, p in module.named_parameters()},
            "versions": {n: p._version for n, p in module.named_parameters()},
            "buffers": dict(module.named_buffers()),
            "training": {n: m.training for n, m in module.named_modules()},
        }
    state["saved"] = adversary.state_dict()
    return copied(state)


def copied(value: Any) -> Any:
    """A deep copy whose tensors are detached."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, Mapping):
        return {key: copied(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(copied(item) for item in value)
    return copy.deepcopy(value)


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Places where two nested values are not the same, bit by bit."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        same = one.dtype == other.dtype and one.shape == other.shape
        same = same and torch.equal(_bits(one), _bits(other))
        return [] if same else [place]
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        if one.keys() != other.keys():
            return [f"{place}: keys {sorted(map(str, one.keys() ^ other.keys()))}"]
        return [d for key in one for d in differences(one[key], other[key], f"{place}/{key}")]
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        if len(one) != len(other):
            return [f"{place}: lengths"]
        return [d for i, (a, b) in enumerate(zip(one, other)) for d in differences(a, b, f"{place}/{i}")]
    return [] if type(one) is type(other) and one == other else [place]


def _bits(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def assert_same(one: Any, other: Any, but: tuple[str, ...] = ()) -> None:
    """Fail unless both are bitwise the same, but for places that begin so."""
    found = [place for place in differences(one, other) if not place.startswith(but)]
    assert not found, found[:10]
