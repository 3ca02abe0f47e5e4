"""How good samples of digits are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
from scipy.stats import hypergeom
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance

from advloss_distill.digits._classifier import Classifier
from advloss_distill.digits._data import Digits

CLOSE = 0.1


@dataclass(frozen=True)
class Figures:
    """Attributes:
    features_all, features_held_out: Fréchet distance in the classifier's features, to all and to held-out digits.
    pixels_all, pixels_held_out: the same in pixel space.
    accuracy: share of samples that the classifier takes for what they were made for.
    memorized: how often a sample is nearer to one of 400 random training digits than to any of the 400 held-out ones:
        0.5 where nothing is memorized, however good or typical the samples are (after Meehan et al.,
        arXiv:2004.05675).
    close: share of samples closer to a training digit than 90 % of held-out digits are (for those: 0.1). It grows with
        memorization, but also where samples get better, or are all alike.
    copied: share of samples three times nearer to one training digit than to the next (Yoon et al. 2023).
    nearest: median distance to the nearest training digit.
    """

    features_all: float
    features_held_out: float
    pixels_all: float
    pixels_held_out: float
    accuracy: float
    memorized: float
    close: float
    copied: float
    nearest: float

    def as_dict(self) -> dict[str, float]:
        """By name."""
        return asdict(self)


class Evaluation:
    """Compares samples with the data."""

    def __init__(self, digits: Digits, classifier: Classifier) -> None:
        self.digits = digits
        self.classifier = classifier
        self._close = torch.quantile(_distances(digits.held_out_images, digits.images).amin(1), CLOSE)

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor) -> Figures:
        """Figures of images `(N, 1, 8, 8)`, clamped to [-1, 1], that were made for `labels` `(N,)`."""
        images = images.clamp(-1, 1)
        everything, held_out = self.digits.all_images, self.digits.held_out_images
        features = self.classifier.features
        distances = _distances(images, self.digits.images)
        nearest, second = distances.topk(2, dim=1, largest=False).values.unbind(1)
        return Figures(
            features_all=_frechet(features(images), features(everything)),
            features_held_out=_frechet(features(images), features(held_out)),
            pixels_all=_frechet(images.flatten(1), everything.flatten(1)),
            pixels_held_out=_frechet(images.flatten(1), held_out.flatten(1)),
            accuracy=float((self.classifier(images).argmax(1) == labels).double().mean()),
            memorized=self._memorized(images, distances),
            close=float((nearest < self._close).double().mean()),
            copied=float((nearest < second / 3).double().mean()),
            nearest=float(nearest.median()),
        )

    def held_out(self) -> Figures:
        """The floor: figures of real digits that nothing was trained on."""
        return self(self.digits.held_out_images, self.digits.held_out_labels)

    def _memorized(self, images: Tensor, to_training: Tensor) -> float:
        to_held_out = _distances(images, self.digits.held_out_images)
        to_held_out[to_held_out == 0] = torch.inf  # a held-out digit is not its own neighbour
        nearer = (to_training < to_held_out.amin(1, keepdim=True)).sum(1)
        # that at least one of those is among as many training digits, drawn at random, as there are held-out ones
        chance = hypergeom.sf(0, to_training.shape[1], nearer.cpu().numpy(), to_held_out.shape[1])
        return float(chance.mean())


def _distances(images: Tensor, others: Tensor) -> Tensor:
    """From each image to each other one, `(N, M)`, exactly 0 where they are the same."""
    return torch.cdist(images.flatten(1), others.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")


class _AsGiven(nn.Module):
    num_features = 64

    def forward(self, features: Tensor) -> Tensor:
        return features


def _frechet(samples: Tensor, reference: Tensor) -> float:
    """Fréchet distance of Gaussians fitted to features `(N, 64)` and `(M, 64)`."""
    metric = FrechetInceptionDistance(feature=_AsGiven(), normalize=False, sync_on_compute=False)
    metric.set_dtype(torch.float64)
    metric.update(reference.double(), real=True)
    metric.update(samples.double(), real=False)
    return float(metric.compute())


def table(rows: Mapping[str, Figures]) -> str:
    """Rows of figures by name, as text."""
    head = ("", "features", "held out", "pixels", "held out", "accuracy", "memorized", "close", "copied", "nearest")
    lines = [
        head,
        *((name, *(f"{value:.3f}" for value in figures.as_dict().values())) for name, figures in rows.items()),
    ]
    width = max(len(line[0]) for line in lines)
    return "\n".join(line[0].ljust(width) + "".join(cell.rjust(11) for cell in line[1:]) for line in lines)
