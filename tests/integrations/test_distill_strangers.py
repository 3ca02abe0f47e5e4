"""A family from outside, whose network reads values of what it is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from lumina_tools import Lumina, LuminaOfItsOwnMind, LuminaOfNoWidth, lumina_conditions, tiny_lumina
from pipeline_tools import TOKENS, tiny_pipeline
from test_distill_memory import keeps
from torch import Tensor, nn

from advloss import InputError, OptionError, StateError
from advloss_distill import (
    Conditions,
    Family,
    LatentData,
    TeacherDiscriminator,
    estimate_memory,
    stand_in,
    without_memory,
)


class LuminaOfAnotherName(Lumina):
    widths = (("prompt_embeds", "caption_channels"),)


class Classes(Family):
    """A network of classes, with no more than the guide asks for."""

    blocks = ("transformer_blocks.*",)
    predictions = ("epsilon",)
    takes = ("class_labels",)

    def output(self, network: nn.Module, noisy: Tensor, timesteps: Tensor, condition: Conditions) -> Tensor:
        return network(noisy, timestep=timesteps, class_labels=condition["class_labels"]).sample[:, : noisy.shape[1]]

    def encode(self, pipeline: Any, prompts: Sequence[str] | None, **options: Any) -> Conditions:
        return {"class_labels": torch.tensor(pipeline.get_label_ids(prompts))}

    def example(self, network: Any, count: int = 1, tokens: int | None = None) -> Conditions:
        return {"class_labels": torch.zeros(count, dtype=torch.long)}

    def num_classes(self, network: Any) -> int:
        return 1000


def saved(family: Family, path: Path, width: int = 16) -> Path:
    told = lumina_conditions(3)
    told["prompt_embeds"] = torch.randn(3, TOKENS, width)
    LatentData(torch.randn(3, *family.shape), told).save(path)
    return path


@pytest.mark.parametrize("kind", [Lumina, LuminaOfNoWidth, LuminaOfItsOwnMind])
def test_data_of_its_own_teacher_are_loaded(kind: type[Family], tmp_path: Path) -> None:
    family = kind(tiny_lumina(), resolution=16)
    assert len(LatentData.load(saved(family, tmp_path / "data.safetensors"), family)) == 3


def test_data_of_another_are_refused_where_the_width_is_known(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    family = Lumina(tiny_lumina(), resolution=16)
    path = saved(family, tmp_path / "data.safetensors", width=32)
    words = (
        r"told, of a sample, prompt_embeds \(5, 32\) in float32, .* can be told, for example, prompt_embeds \(256, 16\)"
    )
    with pytest.raises(InputError, match=words):
        LatentData.load(path, family)
    assert not caplog.records  # nor torch's own traceback of the question
    for kind in (LuminaOfNoWidth, LuminaOfItsOwnMind):
        assert len(LatentData.load(path, kind(tiny_lumina(), resolution=16))) == 3  # nobody can tell


def test_labels_of_a_family_of_classes(tmp_path: Path) -> None:
    family = Classes(tiny_pipeline("dit"))
    labels = torch.tensor([1, 999, 5])
    LatentData(torch.randn(3, *family.shape), {"class_labels": labels}).save(tmp_path / "data.safetensors")
    data = LatentData.load(tmp_path / "data.safetensors", family)
    assert family.judged(data.told, torch.zeros(3, dtype=torch.long))["class"].equal(labels)
    LatentData(data.latents, {"class_labels": labels + 1}).save(tmp_path / "data.safetensors")
    with pytest.raises(
        InputError, match="knows 1000 classes, 0 to 999, and 1 of 3 samples are of others, such as 1000"
    ):
        LatentData.load(tmp_path / "data.safetensors", family)
    LatentData(torch.ones(3, *family.shape, dtype=torch.long), data.told).save(tmp_path / "data.safetensors")
    with pytest.raises(StateError, match="holds latents in int64: they are floating-point numbers"):
        LatentData.load(tmp_path / "data.safetensors", family)


@pytest.mark.parametrize("lora", [0, 2])
def test_memory_is_counted(lora: int) -> None:
    pipeline = tiny_lumina()
    family = Lumina(pipeline, resolution=16)
    found = estimate_memory(family, pipeline.transformer, batch_size=2, lora=lora, tokens=TOKENS)
    student = family.adapted(pipeline.transformer, lora) if lora else family.student(pipeline.transformer)
    told = {**lumina_conditions(2), "prompt_attention_mask": torch.ones(2, TOKENS, dtype=torch.long)}
    noisy, timesteps = torch.randn(2, *family.shape), torch.tensor([9, 500])
    real = keeps(student, lambda: family.output(student, noisy, timesteps, told))
    assert found.activations == pytest.approx(real, rel=0.05)


def test_a_discriminator_is_built_without_memory() -> None:
    pipeline = tiny_lumina()
    family = Lumina(pipeline, resolution=16)
    example = stand_in(family, pipeline.transformer).told
    there = TeacherDiscriminator(family, pipeline.transformer, example)
    without_memory(family, pipeline)
    shapes = [
        [parameter.shape for parameter in judge.parameters()]
        for judge in (there, TeacherDiscriminator(family, pipeline.transformer, example))
    ]
    assert shapes[0] == shapes[1]


def test_what_is_not_known_is_asked_for() -> None:
    pipeline = tiny_lumina()
    with pytest.raises(OptionError, match=r"how wide prompt_embeds .* LuminaOfNoWidth widths = \(\('prompt_embeds', "):
        estimate_memory(LuminaOfNoWidth(pipeline, resolution=16), pipeline.transformer, batch_size=2)
    with pytest.raises(
        OptionError, match=r"LuminaOfAnotherName.widths has 'caption_channels' for prompt_embeds, which .* not have"
    ):
        estimate_memory(LuminaOfAnotherName(pipeline, resolution=16), pipeline.transformer, batch_size=2)
    with pytest.raises(OptionError, match=r"cannot be asked without its weights.*--iterations 1"):
        estimate_memory(LuminaOfItsOwnMind(pipeline, resolution=16), pipeline.transformer, batch_size=2)
