"""The model card of a student."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as File

import huggingface_hub

from advloss_distill._family import Family
from advloss_distill._simulation import SamplingPath

ROWS = 12
ADAPTER = "pytorch_lora_weights.safetensors"
"""The file that an adapter is saved to: offline diffusers does not look for it in a repository."""
CURVES = (
    *("generator_loss", "distillation_loss"),
    *("discriminator/loss", "discriminator/real_accuracy", "discriminator/fake_accuracy"),
)


@dataclass(frozen=True)
class Card:
    """What a reader has to know.

    Attributes:
        teacher: name on the hub, or path; of a path its last part is shown.
        revision: of the teacher on the hub.
        licence: of the teacher, which its students are bound to; None is looked up in the teacher's own card.
        data: what it was trained on.
        settings: by name.
        curves: by name, values over training.
        name: of the model on the hub, or where else it is found.
        guidance_scale: that a reader should sample with; None is the family's: 0, or `Family.adapter_guidance` of an adapter.
    """

    teacher: str
    data: str
    licence: str | None = None
    settings: Mapping[str, object] = field(default_factory=dict)
    curves: Mapping[str, Sequence[float]] = field(default_factory=dict)
    name: str = "path/to/this/folder"
    guidance_scale: float | None = None
    revision: str | None = None

    def text(self, pipeline: str, family: Family, paths: Sequence[SamplingPath], adapter: str | None = None) -> str:
        """Markdown with the front matter of the Hugging Face hub; `adapter` is the scheduler's class of one."""
        licence = {"license": self.licence} if self.licence else licence_of(self.teacher, self.revision)
        local = File(self.teacher).exists()
        teacher = File(self.teacher).resolve().name if local else self.teacher
        front = ["---", "library_name: diffusers", *(f"{k}: {v}" for k, v in ({"license": "other"} | licence).items())]
        front += [] if local else [f"base_model: {self.teacher}"]
        front += ["tags:", "  - distillation", *(["  - lora"] if adapter else []), "---"]
        source = f"path/to/{teacher}" if local else teacher
        opened = self._code(source, family, adapter)
        steps = [f"| {len(path)} | {', '.join(f'{t:g}' for t in path)} |" for path in paths]
        settings = [f"| {name} | {value} |" for name, value in self.settings.items()]
        licence_words = (
            licence.get("license_name", licence.get("license"))
            or "not stated there: look it up before you share this model"
        )
        parts = [
            "\n".join(front),
            f"# {pipeline} in {_numbers([len(path) for path in paths])} steps",
            f"Distilled from `{teacher}` with advloss.",
            "\n".join(["```python", *opened, "```"]),
            "\n".join(
                ["The scheduler visits the timesteps of training:", "", "| steps | timesteps |", "|---|---|", *steps]
            ),
            f"- Teacher: `{teacher}`\n- Licence of the teacher, which binds this model, too: {licence_words}\n"
            f"- Data: {self.data}\n- Resolution: {family.resolution} x {family.resolution}",
        ]
        if settings:
            parts.append("\n".join(["## Settings", "", "| setting | value |", "|---|---|", *settings]))
        if self.curves:
            parts.append("\n".join(["## Curves", "", *_table(self.curves)]))
        return "\n\n".join(parts) + "\n"

    def _code(self, teacher: str, family: Family, adapter: str | None) -> list[str]:
        """Lines of Python that sample in one step, at the resolution and guidance of training."""
        told = ", ".join(f"{name}=..." for name in family.takes) if "class_labels" in family.takes else "prompt"
        guidance = self.guidance_scale
        if guidance is None:
            guidance = family.adapter_guidance if adapter else 0
        sizes = "".join(f", {name}={value}" for name, value in family.size.items())
        call = f"image = pipeline({told}, num_inference_steps=1, guidance_scale={guidance:g}{sizes}).images[0]"
        if not adapter:
            start = ["from diffusers import DiffusionPipeline", ""]
            return [*start, f'pipeline = DiffusionPipeline.from_pretrained("{self.name}")', call]
        return [
            f"from diffusers import DiffusionPipeline, {adapter}",
            "",
            f'pipeline = DiffusionPipeline.from_pretrained("{teacher}")',
            f'folder = "{self.name}"',
            f'pipeline.scheduler = {adapter}.from_pretrained(folder, subfolder="scheduler")',
            f'pipeline.load_lora_weights(folder, weight_name="{ADAPTER}")',
            call,
        ]


def licence_of(teacher: str, revision: str | None = None) -> dict[str, str]:
    """The fields ``license``, ``license_name`` and ``license_link`` of the card beside a local teacher, or on the hub.

    Empty where there is none, it says nothing, or the hub cannot be asked and the card is not in its cache.
    """
    card = File(teacher) / "README.md"
    try:
        if not File(teacher).exists():
            card = File(huggingface_hub.hf_hub_download(teacher, card.name, revision=revision))
        said = huggingface_hub.ModelCard.load(card).data.to_dict()
    except Exception:  # networks, names and other people's front matter raise of all kinds; a card is no reason to fail
        return {}
    found = {name: said.get(name) for name in ("license", "license_name", "license_link")}
    return {name: value for name, value in found.items() if isinstance(value, str)}


def read_curves(log: File) -> dict[str, list[float]]:
    """What a card shows of a step log (JSON lines, as `Progress.as_dict` has them): losses and accuracies."""
    lines = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    return {name: [line[name] for line in lines] for name in CURVES if all(name in line for line in lines)}


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
