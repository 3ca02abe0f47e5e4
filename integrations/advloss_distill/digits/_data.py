"""scikit-learn's digits: 1,797 scans of 8 x 8 pixels, shipped in the package."""

from __future__ import annotations

from typing import final

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor

from advloss_distill._simulation import Conditions
from advloss_distill._teacher_made import ByClass

HELD_OUT = 400
CLASSES = 10


@final
class Digits:
    """Images `(N, 1, 8, 8)` in [-1, 1] and labels `(N,)`, split once and for all into training and held-out ones.

    As the `Data` of a distillation it draws from the training images, with torch's global random numbers.
    """

    def __init__(self, device: torch.device | str = "cpu") -> None:
        images, labels = load_digits(return_X_y=True)
        images = torch.tensor(images, dtype=torch.float32, device=device).view(-1, 1, 8, 8) / 8 - 1
        labels = torch.tensor(labels, dtype=torch.long, device=device)
        train, held_out = train_test_split(
            range(len(labels)), test_size=HELD_OUT, random_state=0, stratify=labels.cpu()
        )
        self.images, self.labels = images[train], labels[train]
        self.held_out_images, self.held_out_labels = images[held_out], labels[held_out]
        self._by_class = ByClass(self.images, self.labels)

    @property
    def all_images(self) -> Tensor:
        """Training and held-out images together."""
        return torch.cat([self.images, self.held_out_images])

    def conditions(self, count: int) -> Conditions:
        """Labels, each class as often as can be, in random order."""
        device = self.labels.device
        labels = torch.arange(count, device=device) % CLASSES
        labels = (labels + torch.randint(CLASSES, (), device=device)) % CLASSES
        return {"class_labels": labels[torch.randperm(count, device=device)]}

    def real(self, condition: Conditions) -> Tensor:
        """A random training image of each label."""
        return self._by_class.draw(condition["class_labels"])
