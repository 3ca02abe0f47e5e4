"""FID and Inception score as published: on features of a network that has to be downloaded once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from advloss import InputError, OptionError

ENOUGH = 10_000


@dataclass(frozen=True, kw_only=True)
class InceptionMetrics:
    """What papers report.

    Attributes:
        fid: Fréchet inception distance (arXiv:1706.08500); lower is better.
        inception_score: (arXiv:1606.03498); higher is better, says nothing about the real images.
        samples: how many fakes both are of.
    """

    fid: float
    inception_score: float
    samples: int


@torch.no_grad()
def inception_metrics(
    fake: Iterable[Tensor], real: Iterable[Tensor], device: torch.device | str = "cpu"
) -> InceptionMetrics:
    """FID and Inception score by torchmetrics and torch-fidelity's weights.

    Args:
        fake, real: batches of images `(N, 1 or 3, H, W)` in [-1, 1], of any number; FID is biased by it, and more than
            usual below 10,000, which a warning says. Papers take 50,000.

    Raises:
        OptionError: torch-fidelity is not installed, or its weights are neither here nor to be had.
        InputError: there are no images.
    """
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.inception import InceptionScore

    try:
        fid, score = FrechetInceptionDistance(normalize=True).to(device), InceptionScore(normalize=True).to(device)
    except ModuleNotFoundError as error:
        raise OptionError("FID needs a package: pip install torch-fidelity; feature_metrics does without") from error
    except OSError as error:
        raise OptionError(
            f"the weights of the Inception network cannot be loaded ({error}); feature_metrics takes any features"
        ) from error
    counts = {True: 0, False: 0}
    for batches, is_real in ((real, True), (fake, False)):
        for batch in batches:
            images = (batch.to(device).expand(-1, 3, -1, -1).clamp(-1, 1) + 1) / 2
            fid.update(images, real=is_real)
            if not is_real:
                score.update(images)
            counts[is_real] += len(batch)
    if min(counts.values()) < 2:
        raise InputError("there are no images to compare: give two or more of both kinds")
    if min(counts.values()) < ENOUGH:
        warnings.warn(
            f"FID of {counts[False]} samples and {counts[True]} real images is too high: it is biased below "
            f"{ENOUGH:,}, and papers take 50,000. Compare it with nothing but the same numbers.",
            stacklevel=2,
        )
    return InceptionMetrics(fid=float(fid.compute()), inception_score=float(score.compute()[0]), samples=counts[False])
