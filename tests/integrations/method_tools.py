"""Methods of distillation in miniature."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator
from pipeline_tools import FAMILIES, tiny_conditions, tiny_pipeline

from advloss_distill import Conditions, Distillation, Family, LatentData, family_of, sampling_paths, student_scheduler
from advloss_distill.methods import Method, Setup, build_method

DINO = ("dino", {"backbone": "test_vit", "pretrained": False, "blocks": (1, 3), "resolution": 32})
GUIDED = {name for name in FAMILIES if name != "flux"}  # its guidance is an input
PROMPTED = GUIDED - {"dit"}
NEEDS: dict[str, dict[str, Any]] = {
    "ladd": {},
    "add": {"discriminator": DINO},
    "adversarial": {"discriminator": ("projection", {"width": 8, "architecture": "convolutional"})},
    "dmd2": {"discriminator_steps": 2},
    "lcm": {},
    "lcm-ladd": {},
}
"""By method, options that make it small."""


def without_text_encoder(family: Family) -> None:
    """Give the family something to say where nothing is asked for: a miniature has no text encoder to say it."""
    torch.manual_seed(9)
    nothing, negative = tiny_conditions(family, 1), tiny_conditions(family, 1)
    if "class_labels" not in nothing and family.name != "FluxPipeline":
        family.nothing = lambda pipeline, prompt="": negative if prompt else nothing  # type: ignore[method-assign]


def tiny_setup(name: str, **options: Any) -> Setup:
    """A family in miniature with ten latents."""
    pipeline = tiny_pipeline(name)
    family = family_of(pipeline, resolution=FAMILIES[name].side)
    without_text_encoder(family)
    told: Conditions = tiny_conditions(family, 10)
    return Setup(
        **{
            "family": family,
            "pipeline": pipeline,
            "data": LatentData(torch.randn(10, *family.shape), told),
            "example": told,
            "paths": sampling_paths(student_scheduler(family)),
            "batch_size": 8,
            **options,
        }
    )


def tiny_method_run(method: str, setup: Setup, accelerator: Accelerator, **options: Any) -> tuple[Distillation, Method]:
    """A run of it; what it needs to be small is given."""
    built = build_method(method, setup, **{**NEEDS[method], **options})
    trained = [parameter for parameter in built.student.parameters() if parameter.requires_grad]
    distillation = Distillation(
        setup.family,
        setup.teacher,
        data=setup.data,
        optimizer=torch.optim.Adam(trained, lr=1e-4),
        accelerator=accelerator,
        **built.arguments(),
    )
    return distillation, built
