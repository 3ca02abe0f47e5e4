"""scikit-learn's digits, 1,797 scans of 8 x 8 pixels that come with the package; and three of them as one image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import final

import torch
from torch import Tensor
from torch.utils.data import TensorDataset

HELD_OUT = 297
CLASSES = 10


def digits(held_out: int = HELD_OUT) -> tuple[TensorDataset, TensorDataset]:
    """Images `(1, 8, 8)` in [-1, 1] with labels, to train on and held out: always the same split, all classes in both."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    arrays = train_test_split(
        *load_digits(return_X_y=True), test_size=held_out, random_state=0, stratify=load_digits().target
    )
    images = [torch.tensor(array, dtype=torch.float32).view(-1, 1, 8, 8) / 8 - 1 for array in arrays[:2]]
    labels = [torch.tensor(array, dtype=torch.long) for array in arrays[2:]]
    return TensorDataset(images[0], labels[0]), TensorDataset(images[1], labels[1])


@final
class StackedDigits:
    """Three digits as red, green and blue: 1,000 modes that a classifier of digits can count (arXiv:1611.02163).

    The papers stack MNIST's digits of 28 x 28; these have 8 x 8 pixels, and each is drawn from 1,500.

    Attributes:
        modes: 1,000.
    """

    modes = CLASSES**3

    def __init__(self) -> None:
        self.images, self.labels = digits()[0].tensors

    def sample(self, count: int) -> tuple[Tensor, Tensor]:
        """Images `(count, 3, 8, 8)` in [-1, 1] and their modes `(count,)`, drawn from torch's global generator."""
        chosen = torch.randint(len(self.images), (count, 3))
        return self.images[chosen][:, :, 0], mode_of(self.labels[chosen])

    def batches(self, size: int) -> Iterator[Tensor]:
        """Fresh batches `(size, 3, 8, 8)` without end."""
        while True:
            yield self.sample(size)[0]


def mode_of(labels: Tensor) -> Tensor:
    """The number, 0 to 999, of three digits `(N, 3)`."""
    return labels @ torch.tensor([100, 10, 1], device=labels.device)
