"""Adaptive discriminator augmentation (Karras et al. 2020)."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn

from advloss import Augmentation, InputError, Logits, OptionError, as_scales, logit_mean
from advloss_augmentations._ada_transforms import TRANSFORMS, color_matrices, resample, sampling_matrices


@final
class AdaptiveAugment(Augmentation):
    """Flips, turns, shifts, scales and colours, each with probability p, which follows the discriminator (arXiv:2006.06676).

    - ``blit``: horizontal flip, quarter turns, shifts by up to 1/8 of the size in whole pixels.
    - ``geometry``: scale ``2^N(0, 0.2)`` along both axes and along each against the other, any turn, shifts
      ``N(0, 1/8)`` of the size.
    - ``color``: brightness ``N(0, 0.2)``, contrast ``2^N(0, 0.5)``, luma flip, any turn of the hue, saturation ``2^N(0, 1)``;
      on images of other than 3 channels brightness, contrast and luma flip act on each.

    ``r = E sign(D(real))`` says how much the discriminator overfits: 0 not at all, 1 wholly. Every `interval` steps p
    goes up where r is above `target` and down below it (section 3.1). The sign means something where a logit of 0 is the
    loss's border between real and fake: not with Wasserstein and relativistic losses; give those a fixed p.

    Images are sampled once, bilinearly, and mirrored at the edges; the authors filter before and after ("sym6"), which is
    sharper. Takes images `(N, C, H, W)` and returns the same shape. Differentiable twice by the samples.

    Args:
        target: what r should be; 0.6 in the paper.
        images: real images in which p can go from 0 to 1; 500,000 in the paper, less for short trainings.
        interval: steps between two changes of p; 4 in the paper.
        p: where it starts. With ``target=None`` it stays there.
        policy: kinds of transforms, separated by commas.

    Attributes:
        p: probability of each transform, a scalar buffer.

    Raises:
        OptionError: an option outside these.
        InputError: samples that are no floating-point images.
    """

    p: Tensor
    signs: Tensor
    seen: Tensor
    steps: Tensor

    def __init__(
        self,
        *,
        target: float | None = 0.6,
        images: int = 500_000,
        interval: int = 4,
        p: float = 0.0,
        policy: str = "blit,geometry,color",
    ) -> None:
        super().__init__()
        names = tuple(name.strip() for name in policy.split(",")) if isinstance(policy, str) else ()
        if not names or not set(names) <= set(TRANSFORMS):
            raise OptionError(f"AdaptiveAugment: policy={policy!r}; join some of {', '.join(TRANSFORMS)} by commas")
        if not 0 <= p <= 1 or not (target is None or -1 < target < 1):
            raise OptionError(f"AdaptiveAugment: p={p!r}, target={target!r}; give p from 0 to 1, and -1 < target < 1")
        for option, value in (("images", images), ("interval", interval)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise OptionError(f"AdaptiveAugment: {option}={value!r}; give a whole number, 1 or more")
        self.target, self.images, self.interval, self.policy = target, images, interval, names
        self.register_buffer("p", torch.tensor(float(p)))
        for name in ("signs", "seen", "steps"):  # since p was last changed: their sum, images, steps
            self.register_buffer(name, torch.zeros(()))

    def forward(self, samples: Tensor) -> Tensor:
        if samples.ndim != 4 or not samples.is_floating_point():
            raise InputError(
                f"AdaptiveAugment takes floating-point images (N, C, H, W); given: {samples.dtype} {tuple(samples.shape)}"
            )
        exact = samples.to(torch.promote_types(samples.dtype, torch.float32))
        p = self.p.to(exact)
        if {"blit", "geometry"} & set(self.policy):
            exact = resample(exact, sampling_matrices(exact, p, self.policy))
        if "color" in self.policy:
            matrices = color_matrices(exact, p)
            if samples.shape[1] != 3:  # as the authors do on grey images: the mean of what the three would become
                scale, shift = matrices[:, :, :3].sum(2).mean(1), matrices[:, :, 3].mean(1)
                exact = exact * scale[:, None, None, None] + shift[:, None, None, None]
            else:
                exact = torch.einsum("nij,njhw->nihw", matrices[:, :, :3], exact) + matrices[:, :, 3, None, None]
        return exact.to(samples.dtype)

    def after_step(self, discriminator: nn.Module, real_logits: Logits, fake_logits: Logits) -> None:
        """Gather signs; every `interval` steps move p."""
        if self.target is None:
            return
        scales = as_scales(real_logits)
        self.signs += logit_mean([scale.sign() for scale in scales]).to(self.signs)
        self.seen += len(scales[0])
        self.steps += 1
        due = self.steps >= self.interval
        move = (self.signs / self.steps - self.target).sign() * self.seen / self.images
        self.p.copy_(torch.where(due, self.p + move, self.p).clamp(0, 1))
        for buffer in (self.signs, self.seen, self.steps):
            buffer *= ~due
