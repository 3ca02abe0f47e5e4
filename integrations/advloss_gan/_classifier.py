"""A judge of digits: which digit a sample is, and features to compare samples by. No discriminator ever sees it."""

from __future__ import annotations

from typing import final

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from advloss_gan._digits import CLASSES, StackedDigits, digits, mode_of

SEED, EPOCHS, BATCH, NOISE = 4242, 12, 50, 0.1


@final
class DigitClassifier(nn.Module):
    """Convolutions to 64 features, then a linear layer to ten classes; 98% of held-out digits are right."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(1, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU()),
            *(nn.Conv2d(32, 64, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(64), nn.ReLU()),
            *(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(256, 64), nn.ReLU()),
        )
        self.head = nn.Linear(64, CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        """Class logits `(N, 10)` of images `(N, 1, 8, 8)`."""
        logits: Tensor = self.head(self.features(images))
        return logits


def train_digit_classifier() -> DigitClassifier:
    """Train on the training digits; a few seconds on the CPU, and always the same judge."""
    images, labels = digits()[0].tensors
    with torch.random.fork_rng([]):
        torch.default_generator.manual_seed(SEED)
        classifier = DigitClassifier()
        total = EPOCHS * (len(images) // BATCH)
        optimizer = torch.optim.AdamW(classifier.parameters(), weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=total)
        for _ in range(EPOCHS):
            for chosen in torch.randperm(len(images)).split(BATCH):
                noisy = images[chosen] + NOISE * torch.randn_like(images[chosen])
                loss = cross_entropy(classifier(noisy), labels[chosen], label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
    return classifier.eval().requires_grad_(False)


@torch.no_grad()
def stacked_modes(images: Tensor, classifier: DigitClassifier) -> tuple[int, float]:
    """Modes of 1,000 that stacked digits `(N, 3, 8, 8)` show, and the reverse KL of their shares in nats.

    As in PacGAN (arXiv:1712.04086, section 4.2), which takes N = 26,000; the data themselves, with so many, have 1,000
    modes and 0.02.
    """
    images = images.clamp(-1, 1)
    modes = mode_of(torch.stack([classifier(images[:, [channel]]).argmax(1) for channel in range(3)], dim=1))
    shares = torch.bincount(modes, minlength=StackedDigits.modes).double() / len(modes)
    return int((shares > 0).sum()), float(torch.special.xlogy(shares, shares * StackedDigits.modes).sum())
