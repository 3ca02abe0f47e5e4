"""The model card of a student."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as File

from advloss_distill._family import Family
from advloss_distill._simulation import Path

ROWS = 12


@dataclass(frozen=True)
class Card:
    """What a reader has to know.

    Attributes:
        teacher: name on the hub, or path.
        licence: of the teacher, which its students are bound to; None is looked up beside a local teacher.
        data: what it was trained on.
        settings: by name.
        curves: by name, values over training.
        name: of the model on the hub, or where else it is found.
        guidance_scale: that a reader should sample with; 0 unless the student is told one.
    """

    teacher: str
    data: str
    licence: str | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    name: str = "path/to/this/folder"
    guidance_scale: float = 0

    def text(self, pipeline: str, family: Family, paths: Sequence[Path], adapter: str | None = None) -> str:
        """Markdown with the front matter of the Hugging Face hub; `adapter` is the scheduler's class of one."""
        licence = self.licence or licence_of(self.teacher)
        local = File(self.teacher).exists()
        front = ["---", "library_name: diffusers", f"license: {licence or 'other'}"]
        front += [] if local else [f"base_model: {self.teacher}"]
        front += ["tags:", "  - distillation", *(["  - lora"] if adapter else []), "---"]
        call = ", ".join(f"{name}=..." for name in family.takes) if "class_labels" in family.takes else "prompt"
        opened = ["from diffusers import DiffusionPipeline", ""]
        if adapter:
            opened = [f"from diffusers import DiffusionPipeline, {adapter}", ""]
            opened += [
                f'pipeline = DiffusionPipeline.from_pretrained("{self.teacher}")',
                f'folder = "{self.name}"',
            ]
            opened += [f'pipeline.scheduler = {adapter}.from_pretrained(folder, subfolder="scheduler")']
            opened += ["pipeline.load_lora_weights(folder)"]
        else:
            opened += [f'pipeline = DiffusionPipeline.from_pretrained("{self.name}")']
        opened += [f"image = pipeline({call}, num_inference_steps=1, guidance_scale={self.guidance_scale:g}).images[0]"]
        steps = [f"| {len(path)} | {', '.join(f'{t:g}' for t in path)} |" for path in paths]
        settings = [f"| {name} | {value} |" for name, value in self.settings.items()]
        licence_words = licence or "not stated there: look it up before you share this model"
        parts = [
            "\n".join(front),
            f"# {pipeline} in {_numbers([len(path) for path in paths])} steps",
            f"Distilled from `{self.teacher}` by an adversarial loss, with advloss.",
            "\n".join(["```python", *opened, "```"]),
            "\n".join(
                ["The scheduler visits the timesteps of training:", "", "| steps | timesteps |", "|---|---|", *steps]
            ),
            f"- Teacher: `{self.teacher}`\n- Licence of the teacher, which binds this model, too: {licence_words}\n"
            f"- Data: {self.data}\n- Resolution: {family.resolution} x {family.resolution}",
        ]
        if settings:
            parts.append("\n".join(["## Settings", "", "| setting | value |", "|---|---|", *settings]))
        if self.curves:
            parts.append("\n".join(["## Curves", "", *_table(self.curves)]))
        return "\n\n".join(parts) + "\n"


def licence_of(teacher: str) -> str | None:
    """What the card of a local teacher says; None where there is none, or it says nothing."""
    card = File(teacher) / "README.md"
    if not card.is_file():
        return None
    front = re.match(r"---\n(.*?)\n---", card.read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    found = re.search(r"^license(?:_name)?:\s*(\S+)\s*$", front[1] if front else "", re.MULTILINE)
    return found[1].strip("'\"") if found else None


def _numbers(steps: Sequence[int]) -> str:
    *others, last = sorted(set(steps))
    return f"{', '.join(map(str, others))} or {last}" if others else str(last)


def _table(curves: Mapping[str, Sequence[float]]) -> list[str]:
    """A row for every twelfth of training: means over it."""
    length = max(len(values) for values in curves.values())
    size = max(1, -(-length // ROWS))
    lines = [f"| iteration | {' | '.join(curves)} |", "|---|" + "---|" * len(curves)]
    for start in range(0, length, size):
        means = [
            sum(part) / len(part) if (part := values[start : start + size]) else None for values in curves.values()
        ]
        cells = " | ".join("" if mean is None else f"{mean:.4g}" for mean in means)
        lines.append(f"| {min(start + size, length)} | {cells} |")
    return lines
