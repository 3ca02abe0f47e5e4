"""The judge: a small classifier whose features neither a discriminator nor a teacher ever sees."""

from __future__ import annotations

from typing import cast, final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from advloss_distill.digits._data import CLASSES, Digits

SEED = 4242
EPOCHS, BATCH = 20, 64
SHIFTED, NOISE = 0.3, 0.05
SMOOTHING = 0.1  # without it features have heavy tails, and a few odd samples decide a Fréchet distance


@final
class Classifier(nn.Module):
    """Convolutions to 64 features `(N, 64)`, then a linear layer to the classes."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *self._block(1, 32, stride=1),
            *self._block(32, 64, stride=2),
            *self._block(64, 64, stride=1),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Linear(256, 64),
            nn.ReLU(),
        )
        self.head = nn.Linear(64, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits `(N, 10)` of images `(N, 1, 8, 8)`."""
        return cast(Tensor, self.head(self.features(images)))

    @staticmethod
    def _block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]


def train_classifier(digits: Digits) -> Classifier:
    """Train on the training images, lightly shifted and noised; a few seconds. Always the same judge.

    On the CPU and with random numbers of its own, so that every run, seed and device is judged alike.
    """
    images, labels = digits.images.cpu(), digits.labels.cpu()
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(SEED)
        classifier = Classifier()
        batches = len(images) // BATCH
        optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=EPOCHS * batches)
        for _ in range(EPOCHS):
            for chosen in torch.randperm(len(images)).split(BATCH)[:batches]:
                batch = _shift(images[chosen], SHIFTED)
                loss = cross_entropy(
                    classifier(batch + NOISE * torch.randn_like(batch)), labels[chosen], label_smoothing=SMOOTHING
                )
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return classifier.to(digits.images.device).eval().requires_grad_(False)


def _shift(images: Tensor, share: float) -> Tensor:
    """A share of the images moved by up to one pixel each way, filled with background."""
    count, side = len(images), images.shape[-1]
    offset = torch.randint(0, 3, (2, count)).where(torch.rand(count) < share, torch.ones(2, count, dtype=torch.long))
    rows, columns = (offset[:, :, None] + torch.arange(side)).unbind(0)
    return pad(images, (1, 1, 1, 1), value=-1.0)[
        torch.arange(count)[:, None, None], 0, rows[:, :, None], columns[:, None]
    ][:, None]
