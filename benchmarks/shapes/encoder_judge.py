"""ADD's discriminator where no DINO has been: heads on frozen features of images, those of the VAE's encoder."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import cast, final

import torch
from torch import Tensor, nn

from advloss import FeatureDiscriminator


def encoder_judge(vae: nn.Module, images: Tensor, condition_features: int, num_steps: int) -> FeatureDiscriminator:
    """Each level of the encoder is judged by a head, which is told the prompt and the student's step; logits `(N, 1)`.

    Args:
        vae: of diffusers (`AutoencoderKL`).
        images: some `(N, 3, H, W)` in [-1, 1], for the size and scale of features.
        condition_features: of a prompt's vector.
        num_steps: of the student.
    """
    features = _EncoderFeatures(vae, images)
    with torch.no_grad():
        shapes = [found.shape[1:] for found in features(images)]
    return FeatureDiscriminator(features, _Heads([(c, side) for c, side, _ in shapes], condition_features, num_steps))


@final
class _EncoderFeatures(nn.Module):
    """Images -> maps `(N, C, h, w)` after each level, each over its deviation on some images."""

    def __init__(self, vae: nn.Module, images: Tensor) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(cast(nn.Module, vae.encoder))
        self.levels = [*cast(nn.ModuleList, self.encoder.down_blocks), self.encoder.mid_block]
        with torch.no_grad():
            self.register_buffer("deviations", torch.stack([found.std() for found in self._maps(images)]))

    def forward(self, images: Tensor) -> list[Tensor]:
        deviations = cast(Tensor, self.deviations)
        return [found / deviation for found, deviation in zip(self._maps(images), deviations, strict=True)]

    def _maps(self, images: Tensor) -> list[Tensor]:
        found: list[Tensor] = []
        hooks = [
            cast(nn.Module, level).register_forward_hook(lambda *call: found.append(call[-1])) for level in self.levels
        ]
        self.encoder(images)
        for hook in hooks:
            hook.remove()
        return found


@final
class _Heads(nn.Module):
    def __init__(self, shapes: Sequence[tuple[int, int]], condition_features: int, num_steps: int) -> None:
        super().__init__()
        self.heads = nn.ModuleList(_Head(channels, side, condition_features, num_steps) for channels, side in shapes)

    def forward(self, features: Sequence[Tensor], condition: dict[str, Tensor]) -> Tensor:
        logits = [head(found, condition) for head, found in zip(self.heads, features, strict=True)]
        return sum(logits[1:], start=logits[0])


@final
class _Head(nn.Module):
    """Convolutions that halve a map down to 4 x 4, then ``w.h + <e(prompt, step), h> / sqrt(width)`` of what they make of it."""

    def __init__(self, channels: int, side: int, condition_features: int, num_steps: int, width: int = 64) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, 1, 1), nn.LeakyReLU(0.2)]
        while side > 4:
            layers += [nn.Conv2d(width, width, 4, 2, 1), nn.LeakyReLU(0.2)]
            side //= 2
        layers += [nn.Flatten(), nn.Linear(width * side**2, width), nn.LeakyReLU(0.2)]
        self.body = nn.Sequential(*layers)
        self.logit = nn.Linear(width, 1)
        self.prompt = nn.Linear(condition_features, width)
        self.steps = nn.Embedding(num_steps, width)

    def forward(self, found: Tensor, condition: dict[str, Tensor]) -> Tensor:
        h = self.body(found)
        told = self.prompt(condition["vector"]) + self.steps(condition["time"])
        return cast(Tensor, self.logit(h)) + (told * h).sum(1, keepdim=True) / math.sqrt(h.shape[1])
