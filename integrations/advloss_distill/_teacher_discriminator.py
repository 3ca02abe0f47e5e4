"""LADD's discriminator: heads on the frozen teacher's own features of noised latents (arXiv:2403.12015)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import final

import torch
from torch import Tensor, nn

from advloss import Condition, InputError
from advloss_distill._blocks import block_names, block_outputs
from advloss_distill._family import Family
from advloss_distill._simulation import Conditions

FREQUENCIES = 32


@final
class TeacherDiscriminator(nn.Module):
    """Latents are noised, run through the teacher, and judged after each of its blocks.

    Logits are a list of `(N, L)`, one a block: a head is a 1x1 convolution, group norm and a leaky ReLU on the block's
    tokens (which have seen each other in the teacher), told noise level and prompt by projection. The noise comes with
    the condition: build the family with ``renoising=Renoising()``.

    The teacher is no part of `state_dict`. R1 by ``method="finite-difference"`` needs no double backward through it.

    Args:
        family: calls the teacher.
        teacher: frozen; its parameters are switched off.
        example: conditions of one sample or more, to look at their sizes.
        blocks: places among ``family.blocks``, such as SANA-Sprint's ``(2, 8, 14, 19)``; None takes all.
        width: channels of a head.
        num_classes: for classes in place of prompts, their number.
    """

    dims = 2

    def __init__(
        self,
        family: Family,
        teacher: nn.Module,
        example: Conditions,
        *,
        blocks: Sequence[int] | None = None,
        width: int = 128,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.family = family
        self._teacher = (teacher.requires_grad_(False).eval(),)  # in a tuple: no part of this module
        self.names = block_names(teacher, family.blocks, blocks)
        self.in_channels = family.shape[0]
        example = {name: value[:1] for name, value in example.items()}
        text = family.text(example)
        if num_classes is not None:
            self.num_classes = num_classes
        elif text is not None:
            self.condition_features = text.shape[1]
        told = 0 if text is None else text.shape[1]
        device = next(teacher.parameters()).device
        with torch.no_grad():
            zeros = torch.zeros(1, *family.shape, device=device)
            features = self._features(zeros, torch.zeros(1, dtype=torch.long, device=device), example)
        self.heads = nn.ModuleList(_Head(f.shape[1], width, told, num_classes) for f in features).to(device)

    def forward(self, samples: Tensor, condition: Condition | None = None) -> list[Tensor]:
        """Logits of latents `(N, C, H, W)`."""
        if not isinstance(condition, dict) or "noise" not in condition:
            raise InputError(
                "a TeacherDiscriminator needs condition['noise'] and condition['noise_timesteps']: build the family with "
                "renoising=Renoising(), and pass family.judged(condition, steps)"
            )
        timesteps = condition["noise_timesteps"]
        noisy = self.family.diffusion.add_noise(samples, condition["noise"].to(samples.dtype), timesteps)
        features = self._features(noisy, timesteps, condition)
        level = timesteps / (len(self.family.diffusion.alpha) - 1)
        text, labels = self.family.text(condition), condition.get("class")
        return [head(f.to(samples.dtype), level, text, labels) for head, f in zip(self.heads, features, strict=True)]

    def _features(self, noisy: Tensor, timesteps: Tensor, condition: Conditions) -> list[Tensor]:
        """`(N, C, L)` after each block, without a graph unless `noisy` has one."""
        (teacher,) = self._teacher
        return block_outputs(
            teacher,
            self.names,
            self.family.feature,
            lambda: self.family.answer(teacher, noisy, timesteps, condition),
        )


class _Head(nn.Module):
    """Tokens `(N, C, L)` -> logits `(N, L)`: ``w.h + <e(noise level, prompt), h> / sqrt(width)``."""

    def __init__(self, channels: int, width: int, told: int, num_classes: int | None) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv1d(channels, width, 1), nn.GroupNorm(math.gcd(8, width, width // 4) or 1, width), nn.LeakyReLU(0.2)
        )
        self.logit = nn.Conv1d(width, 1, 1)
        self.level = nn.Linear(2 * FREQUENCIES, width)
        self.text = nn.Linear(told, width) if told and num_classes is None else None
        self.classes = None if num_classes is None else nn.Embedding(num_classes, width)

    def forward(self, tokens: Tensor, level: Tensor, text: Tensor | None, labels: Tensor | None) -> Tensor:
        h = self.body(tokens)
        angles = (
            level.to(h.dtype).unsqueeze(1) * math.pi * torch.arange(1, FREQUENCIES + 1, device=h.device, dtype=h.dtype)
        )
        told = self.level(torch.cat([angles.sin(), angles.cos()], 1))
        if self.text is not None and text is not None:
            told = told + self.text(text.to(h.dtype))
        if self.classes is not None:
            told = told + self.classes(labels)
        return self.logit(h).squeeze(1) + torch.einsum("ncl,nc->nl", h, told) / math.sqrt(h.shape[1])
