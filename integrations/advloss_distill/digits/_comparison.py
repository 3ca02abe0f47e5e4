"""Teacher and student beside the data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from advloss_distill._denoiser import Denoiser, sample
from advloss_distill.digits._classifier import train_classifier
from advloss_distill.digits._data import CLASSES, Digits
from advloss_distill.digits._evaluation import Evaluation, Figures
from advloss_distill.digits._teacher import student_scheduler, teacher_scheduler

TEACHER_STEPS, STUDENT_STEPS = (50, 4, 2, 1), (1, 2, 4)


@dataclass(frozen=True)
class Comparison:
    """Attributes:
    figures: by row, such as "teacher, 50 steps"; the first row is the floor, "held-out digits".
    samples: by the same names, images `(N, 1, 8, 8)`.
    labels: `(N,)`, of the samples in every row.
    """

    figures: dict[str, Figures]
    samples: dict[str, Tensor]
    labels: Tensor


def compare(
    data: Digits, denoiser: Denoiser, teacher: nn.Module, student: nn.Module, count: int = 2000, seed: int = 0
) -> Comparison:
    """Sample both in every number of steps, from the same noise and for the same classes, and measure."""
    evaluation, device = Evaluation(data, train_classifier(data)), data.labels.device
    labels = torch.arange(count, device=device) % CLASSES
    figures, samples = {"held-out digits": evaluation.held_out()}, {}
    for name, network, scheduler, numbers in (
        ("teacher", teacher, teacher_scheduler(), TEACHER_STEPS),
        ("student", student, student_scheduler(), STUDENT_STEPS),
    ):
        for steps in numbers:
            generator = torch.Generator(device).manual_seed(seed)
            noise = torch.randn(count, 1, 8, 8, generator=generator, device=device)
            images = sample(network, denoiser, scheduler, noise, {"class_labels": labels}, steps, generator)
            row = f"{name}, {steps} step{'s' * (steps > 1)}"
            figures[row], samples[row] = evaluation(images, labels), images
    return Comparison(figures, samples, labels)
