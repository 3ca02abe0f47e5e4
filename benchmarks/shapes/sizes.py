"""How large everything is, in earnest and to see that it runs."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Attributes:
    images: to train on.
    samples: as many are held out, and made of each sampler: with a thousand, distances of one sampler differ by a third from
        seed to seed; with 5,400 by 0.02 of about 0.28, as much as two samplers.
    classifier_steps, vae_steps, teacher_iterations, start_iterations: of training.
    trajectories: of the teacher, for students to start on; `solver_steps` each.
    widths: of the teacher's levels.
    batch_size: of the teacher and of students.
    teacher_steps: the most that the teacher is sampled with.
    """

    images: int = 14400
    samples: int = 21600
    classifier_steps: int = 600
    vae_steps: int = 500
    teacher_iterations: int = 3000
    trajectories: int = 5400
    solver_steps: int = 100
    start_iterations: int = 2500
    widths: tuple[int, int] = (32, 64)
    batch_size: int = 48
    teacher_steps: int = 50


SHORT = Sizes(
    images=72,
    samples=72,
    classifier_steps=2,
    vae_steps=2,
    teacher_iterations=2,
    trajectories=36,
    solver_steps=4,
    start_iterations=2,
    widths=(8, 16),
    batch_size=12,
    teacher_steps=4,
)
