"""Where numbers and pictures can be sent."""

from __future__ import annotations

from accelerate.tracking import get_available_trackers


def trackers() -> list[str]:
    """Accelerate's names of those that are installed, and ``"none"``: TensorBoard first where it is there, else none."""
    found = [str(kind.value) for kind in get_available_trackers()]
    return sorted([*found, "none"], key=lambda name: (name != "tensorboard", name != "none", name))
