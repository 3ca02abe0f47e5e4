"""Heads on a diffusion network's features of noised samples: what the discriminators of LADD and DMD2 have in common."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from advloss import Condition, InputError
from advloss_distill._blocks import block_names, block_outputs
from advloss_distill._family import Family
from advloss_distill._simulation import Conditions
from advloss_distill._weightless import asking, built

FREQUENCIES = 32


class NoisedHeads(nn.Module, ABC):
    """Samples are noised, run through a network, and judged after some of its blocks.

    Logits are a list of `(N, L)`, one a block: a head is a layer norm and two dense layers on each of the block's tokens
    (which have seen each other in the network), told noise level, prompt and the student's step by projection. The norm is a
    token's own: one over all tokens would hide how bright a sample is. The noise comes with the condition: build the family
    with ``renoising=Renoising()``.
    """

    dims = 2

    def __init__(
        self,
        family: Family,
        network: nn.Module,
        example: Conditions,
        blocks: Sequence[int] | None,
        width: int,
        num_classes: int | None,
        num_steps: int | None,
    ) -> None:
        super().__init__()
        self.family = family
        self._keep(network)
        self.names = block_names(network, family.blocks, blocks)
        self.in_channels = family.shape[0]
        example = {name: value[:1] for name, value in example.items()}
        text = family.text(example)
        if num_classes is not None:
            self.num_classes = num_classes
        elif text is not None:
            self.condition_features = text.shape[1]
        if num_steps is not None:
            self.num_steps = num_steps
        told = 0 if text is None else text.shape[1]
        device = next(network.parameters()).device
        heads = (_Head(f.shape[1], width, told, num_classes, num_steps) for f in self._sizes(example))
        self.heads = nn.ModuleList(heads).to(device)

    @abstractmethod
    def _keep(self, network: nn.Module) -> None:
        """Keep `network`, as a part of this module or beside it."""

    @property
    @abstractmethod
    def _network(self) -> nn.Module:
        """What `_keep` was given."""

    def forward(self, samples: Tensor, condition: Condition | None = None) -> list[Tensor]:
        """Logits of latents `(N, C, H, W)`."""
        return self.judge(self.tokens(samples, condition), condition)

    def tokens(self, samples: Tensor, condition: Condition | None) -> list[Tensor]:
        """The heads' inputs `(N, C, L)`, one a block."""
        if not isinstance(condition, dict) or "noise" not in condition:
            raise InputError(
                f"a {type(self).__name__} needs condition['noise'] and condition['noise_timesteps']: build the family with "
                "renoising=Renoising(), and pass family.judged(condition, steps)"
            )
        timesteps = condition["noise_timesteps"]
        noisy = self.family.diffusion.add_noise(samples, condition["noise"].to(samples.dtype), timesteps)
        return [f.to(samples.dtype) for f in self._features(noisy, timesteps, condition)]

    def judge(self, tokens: Sequence[Tensor], condition: Condition | None) -> list[Tensor]:
        """The heads' logits `(N, L)` of their inputs."""
        assert isinstance(condition, dict)
        level = condition["noise_timesteps"] / (len(self.family.diffusion.alpha) - 1)
        text, labels, steps = self.family.text(condition), condition.get("class"), condition.get("time")
        return [head(f, level, text, labels, steps) for head, f in zip(self.heads, tokens, strict=True)]

    @torch.no_grad()
    def _sizes(self, example: Conditions) -> list[Tensor]:
        """`_features` of no meaning, also by a network on the device ``meta``."""
        network: Any = self._network
        if next(network.parameters()).device.type == "meta":
            network = built(type(network), network.config)
        zeros = torch.zeros(1, *self.family.shape, device=next(network.parameters()).device)
        timesteps = torch.zeros(1, dtype=torch.long, device=zeros.device)
        with asking(network):
            return self._features(zeros, timesteps, example, network)

    def _features(
        self, noisy: Tensor, timesteps: Tensor, condition: Conditions, network: nn.Module | None = None
    ) -> list[Tensor]:
        """`(N, C, L)` after each block, without a graph unless `noisy` or the network has one."""
        asked = self._network if network is None else network
        return block_outputs(
            asked, self.names, self.family.feature, lambda: self.family.answer(asked, noisy, timesteps, condition)
        )


class _Head(nn.Module):
    """Tokens `(N, C, L)` -> logits `(N, L)`: ``w.h + <e(noise level, prompt, step), h> / sqrt(width)``."""

    def __init__(self, channels: int, width: int, told: int, num_classes: int | None, num_steps: int | None) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.LayerNorm(channels),
            *(nn.Linear(channels, width), nn.LeakyReLU(0.2)),
            *(nn.Linear(width, width), nn.LeakyReLU(0.2)),
        )
        self.logit = nn.Linear(width, 1)
        self.level = nn.Linear(2 * FREQUENCIES, width)
        self.text = nn.Linear(told, width) if told and num_classes is None else None
        self.classes = None if num_classes is None else nn.Embedding(num_classes, width)
        self.steps = None if num_steps is None else nn.Embedding(num_steps, width)

    def forward(
        self, tokens: Tensor, level: Tensor, text: Tensor | None, labels: Tensor | None, steps: Tensor | None = None
    ) -> Tensor:
        h = self.body(tokens.transpose(1, 2))
        angles = (
            level.to(h.dtype).unsqueeze(1) * math.pi * torch.arange(1, FREQUENCIES + 1, device=h.device, dtype=h.dtype)
        )
        told = self.level(torch.cat([angles.sin(), angles.cos()], 1))
        if self.text is not None and text is not None:
            told = told + self.text(text.to(h.dtype))
        if self.classes is not None:
            told = told + self.classes(labels)
        if self.steps is not None:
            told = told + self.steps(steps)
        return self.logit(h).squeeze(2) + torch.einsum("nlc,nc->nl", h, told) / math.sqrt(h.shape[2])
