"""What a distillation needs at published sizes, counted on tensors that have no memory: no GPU, and none of its memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from advloss_distill import Memory, estimate_memory
from advloss_distill.methods import memory_options
from benchmarks._harness import Settings, Table
from benchmarks._published import PUBLISHED, Published

RANK = 64
"""Of adapters."""
CROP = 256
"""Side of what ADD decodes, in pixels."""
COLUMNS = (
    *("model", "pixels", "billion", "student", "parameters", "gradients, moments, average", "teacher", "activations"),
    *("total, `ladd`", f"total, `add --crop {CROP}`", "total, `add`"),
)


def rows(settings: Settings) -> Iterator[Table]:
    """All models, full and with an adapter."""
    some = PUBLISHED[:1] if settings.short else PUBLISHED
    found = [estimated(published, lora) for published in some for lora in (0, RANK)]
    yield Table(title="Estimated memory of one sample, GB", columns=COLUMNS, rows=found)


def estimated(published: Published, lora: int) -> list[Any]:
    """A row of `COLUMNS`."""
    crops = {"crop": min(CROP, published.resolution)}
    ladd, add, whole = (
        estimate(published, method, lora, **options) for method, options in (("ladd", {}), ("add", crops), ("add", {}))
    )
    pipeline, family = published.build()
    count = sum(p.numel() for p in family.network(pipeline).parameters())
    optimized = ladd.gradients + ladd.moments + ladd.average
    sizes = (ladd.parameters, optimized, ladd.teacher, ladd.activations, ladd.total, add.total, whole.total)
    return [published.name, published.resolution, count / 1e9, named(lora), *(size / 1e9 for size in sizes)]


def named(lora: int) -> str:
    """What is trained, in words."""
    return f"LoRA {lora}" if lora else "full"


def estimate(
    published: Published, method: str, lora: int, resolution: int | None = None, *, small: bool = False, **options: Any
) -> Memory:
    """Of a step on one sample, in bfloat16 (the teacher, too) with gradient checkpointing.

    Args:
        resolution, small: as `Published.build` has them.
        options: of the method.
    """
    pipeline, family = published.build("meta", resolution, small=small)
    return estimate_memory(
        family,
        family.network(pipeline),
        batch_size=1,
        lora=lora,
        gradient_checkpointing=True,
        half_activations=True,
        half_teacher=True,
        tokens=published.tokens,
        vae=pipeline.vae,
        **memory_options(method, **options),
    )
