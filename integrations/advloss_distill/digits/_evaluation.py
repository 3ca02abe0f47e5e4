"""How good samples of digits are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import torch
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
    memorized: share of samples closer to a training digit than 90 % of held-out digits are (for those: 0.1).
    copied: share of samples three times nearer to one training digit than to the next (Yoon et al. 2023).
    nearest: median distance to the nearest training digit.
    """

    features_all: float
    features_held_out: float
    pixels_all: float
    pixels_held_out: float
    accuracy: float
    memorized: float
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
        self._close = torch.quantile(self._distances(digits.held_out_images).amin(1), CLOSE)

    @torch.no_grad()
    def __call__(self, images: Tensor, labels: Tensor) -> Figures:
        """Figures of images `(N, 1, 8, 8)`, clamped to [-1, 1], that were made for `labels` `(N,)`."""
        images = images.clamp(-1, 1)
        everything, held_out = self.digits.all_images, self.digits.held_out_images
        features = self.classifier.features
        nearest, second = self._distances(images).topk(2, dim=1, largest=False).values.unbind(1)
        return Figures(
            features_all=_frechet(features(images), features(everything)),
            features_held_out=_frechet(features(images), features(held_out)),
            pixels_all=_frechet(images.flatten(1), everything.flatten(1)),
            pixels_held_out=_frechet(images.flatten(1), held_out.flatten(1)),
            accuracy=float((self.classifier(images).argmax(1) == labels).double().mean()),
            memorized=float((nearest < self._close).double().mean()),
            copied=float((nearest < second / 3).double().mean()),
            nearest=float(nearest.median()),
        )

    def held_out(self) -> Figures:
        """The floor: figures of real digits that nothing was trained on."""
        return self(self.digits.held_out_images, self.digits.held_out_labels)

    def _distances(self, images: Tensor) -> Tensor:
        """To each training digit, `(N, M)`."""
        return torch.cdist(images.flatten(1), self.digits.images.flatten(1))


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
    head = ("", "features", "held out", "pixels", "held out", "accuracy", "memorized", "copied", "nearest")
    lines = [
        head,
        *((name, *(f"{value:.3f}" for value in figures.as_dict().values())) for name, figures in rows.items()),
    ]
    width = max(len(line[0]) for line in lines)
    return "\n".join(line[0].ljust(width) + "".join(cell.rjust(11) for cell in line[1:]) for line in lines)
