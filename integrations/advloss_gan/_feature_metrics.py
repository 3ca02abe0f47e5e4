"""Distances between sets of features, and how far samples of a class differ."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from advloss import InputError

NEIGHBOURS = 3  # of the paper


@dataclass(frozen=True, kw_only=True)
class FeatureMetrics:
    """Samples beside real ones, in the features that were given: compare only alike.

    Attributes:
        frechet: Fréchet distance of normal distributions fitted to both (arXiv:1706.08500, equation 6); 0 at best. It
            falls with the number of samples: compare equal numbers.
        precision: share of samples that lie among the real ones: quality (arXiv:1904.06991, equation 2).
        recall: share of real ones that lie among the samples: coverage.
    """

    frechet: float
    precision: float
    recall: float


@torch.no_grad()
def feature_metrics(fake: Tensor, real: Tensor) -> FeatureMetrics:
    """Compare features of samples `(N, features)` with those of real ones `(M, features)`; 2,500 of each is usual here.

    A point lies among others when it is within the distance of one of them to its third neighbour.

    Raises:
        InputError: fewer than four features in a set, of different lengths, or not finite.
    """
    for name, features in (("fake", fake), ("real", real)):
        if features.ndim != 2 or len(features) <= NEIGHBOURS or features.shape[1] != real.shape[-1]:
            raise InputError(
                f"{name} features have shape {tuple(features.shape)}; give (N, features), N > {NEIGHBOURS}"
            )
        if not bool(features.isfinite().all()):
            raise InputError(f"{name} features hold NaN or infinity; the generator has diverged")
    fake, real = fake.double(), real.double()  # cdist multiplies, which loses small distances of large features
    return FeatureMetrics(
        frechet=_frechet(fake, real), precision=_share_among(fake, real), recall=_share_among(real, fake)
    )


@torch.no_grad()
def class_diversity(samples: Tensor, labels: Tensor) -> dict[int, float]:
    """Mean distance between two samples of a class, by class: near 0 is collapse within it.

    Args:
        samples: `(N, ...)`, pixels or features.
        labels: `(N,)`; classes with a single sample are left out.

    Raises:
        InputError: not as many labels as samples.
    """
    if labels.shape != samples.shape[:1]:
        raise InputError(f"{len(samples)} samples have labels of shape {tuple(labels.shape)}; give one for each")
    rows = {int(label): samples[labels == label].flatten(1).double() for label in labels.unique()}
    return {label: float(torch.pdist(row).mean()) for label, row in rows.items() if len(row) > 1}


def _frechet(fake: Tensor, real: Tensor) -> float:
    from torchmetrics.image.fid import FrechetInceptionDistance

    metric = FrechetInceptionDistance(feature=_AsGiven(fake.shape[1]), sync_on_compute=False)
    metric.set_dtype(torch.float64)
    metric = metric.to(fake.device)
    metric.update(real, real=True)
    metric.update(fake, real=False)
    return float(metric.compute())


class _AsGiven(nn.Module):
    """Features that were computed before."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.num_features = features

    def forward(self, features: Tensor) -> Tensor:
        return features


def _share_among(points: Tensor, others: Tensor) -> float:
    """Share of `points` that are within the distance of one of `others` to its k-th neighbour (itself is the first)."""
    reach = torch.cdist(others, others).kthvalue(NEIGHBOURS + 1, dim=1).values
    return float((torch.cdist(points, others) <= reach).any(1).double().mean())
