"""How many modes a generator has found, how well, and how evenly."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from advloss import InputError
from advloss_gan._mixture import GaussianMixture


@dataclass(frozen=True, kw_only=True)
class ModeMetrics:
    """What samples look like beside the mixture that they should come from.

    Attributes:
        captured: modes that are nearest to at least one high-quality sample.
        modes: modes of the mixture.
        quality: share of high-quality samples, those within 3 standard deviations of their nearest mode;
            the mixture itself has 0.989 in two dimensions.
        reverse_kl: KL divergence, in nats, from the shares of samples nearest to each mode to equal shares;
            0 at best, log(modes) when all samples are at one mode.
    """

    captured: int
    modes: int
    quality: float
    reverse_kl: float


@torch.no_grad()
def mode_metrics(samples: Tensor, mixture: GaussianMixture) -> ModeMetrics:
    """Measure `samples` `(N, features)`, by the definitions of VEEGAN (arXiv:1705.07761, section 4.1) and PacGAN
    (arXiv:1712.04086, section 4.1); both take N = 2,500.

    Raises:
        InputError: no samples, of another length than the mixture's, or not finite.
    """
    centers = mixture.centers.to(samples)
    if samples.ndim != 2 or len(samples) == 0 or samples.shape[1] != centers.shape[1]:
        raise InputError(f"samples have shape {tuple(samples.shape)}; give (N, {centers.shape[1]}), N >= 1")
    if not bool(samples.isfinite().all()):
        raise InputError("samples hold NaN or infinity; the generator has diverged")
    exactly = "donot_use_mm_for_euclid_dist"  # products of large coordinates lose small distances
    distance, nearest = torch.cdist(samples, centers, compute_mode=exactly).min(dim=1)
    good = distance <= 3 * mixture.std
    shares = torch.bincount(nearest, minlength=len(centers)).double() / len(samples)
    return ModeMetrics(
        captured=len(nearest[good].unique()),
        modes=len(centers),
        quality=float(good.double().mean()),
        reverse_kl=float(torch.special.xlogy(shares, shares * len(centers)).sum()),
    )
