"""What the example on pipelines goes on from, and what it refuses to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from distill_pipeline_tools import TINY
from pipeline_tools import tiny_conditions, tiny_family, tiny_pipeline

import advloss
from advloss_distill import LatentData


def test_a_run_is_resumed_as_it_was_begun(teacher: Path, tmp_path: Path, here: Callable[..., int]) -> None:
    data, out = tmp_path / "data.safetensors", tmp_path / "out"
    begun = LatentData(torch.randn(6, 4, 8, 8), {"class_labels": torch.arange(6)})
    begun.save(data)
    given = ("train", "--teacher", teacher, "--data", data, "--out", out, *TINY, "--validate-every", 0)
    assert here(*given) == 0
    with pytest.raises(
        advloss.StateError, match=r"begun otherwise: lr was 1e-05, and is 0\.001; renoise was None, and"
    ):
        here(*given, "--resume", "--lr", 1e-3, "--renoise", 0, 1)
    with pytest.raises(
        advloss.StateError, match=r"checkpoint of another run \(step-00000002\): go on .*--resume.*--out"
    ):
        here(*given)
    LatentData(torch.randn(7, 4, 8, 8), {"class_labels": torch.arange(7)}).save(data)
    with pytest.raises(advloss.StateError, match="begun otherwise: samples was 6, and is 7"):
        here(*given, "--resume")
    assert len((out / "log.jsonl").read_text().splitlines()) == 2  # as it was
    LatentData(torch.randn(6, 4, 8, 8), {"class_labels": torch.arange(6)}).save(data)
    with pytest.raises(
        advloss.StateError, match=r"begun otherwise: the data's digest was [0-9a-f]{16}, and is [0-9a-f]{16}"
    ):
        here(*given, "--resume")
    begun.save(data)
    watched = ("--iterations", 3, "--validate-every", 1, "--teacher-steps", 2, "--save-every", 2, "--tracker", "none")
    assert here(*given, "--resume", *watched) == 0


@pytest.mark.parametrize("options", [(), ("--lora", 2), ("--lora", 2, "--method", "dmd2"), ("--half-teacher",)])
def test_a_run_is_resumed_with_the_teacher_that_it_was_begun_with(
    options: tuple[object, ...], tmp_path: Path, here: Callable[..., int]
) -> None:
    pipeline = tiny_pipeline("dit")
    for folder in ("begun", "moved"):
        pipeline.save_pretrained(tmp_path / folder / "teacher")
    with torch.no_grad():
        for parameter in pipeline.transformer.parameters():
            parameter.mul_(1.5 if parameter.ndim > 1 else 1)
    pipeline.save_pretrained(tmp_path / "other" / "teacher")
    (tmp_path / "moved" / "teacher").rename(tmp_path / "moved" / "renamed")
    data, out = tmp_path / "data.safetensors", tmp_path / "out"
    LatentData(torch.randn(6, 4, 8, 8), {"class_labels": torch.arange(6)}).save(data)
    given = ("train", "--data", data, "--out", out, *TINY, "--validate-every", 0, *options)
    assert here(*given, "--teacher", tmp_path / "begun" / "teacher") == 0
    with pytest.raises(
        advloss.StateError,
        match=r"otherwise: the digest of the teacher's weights was [0-9a-f]{16}, and is [0-9a-f]{16}",
    ):
        here(*given, "--teacher", tmp_path / "other" / "teacher", "--resume", "--iterations", 3)
    settings = tmp_path / "moved" / "renamed" / "scheduler" / "scheduler_config.json"
    own = settings.read_text(encoding="utf-8")
    settings.write_text(own.replace('"linear"', '"scaled_linear"'), encoding="utf-8")
    with pytest.raises(
        advloss.StateError, match="otherwise: its prediction, timesteps and noise levels was epsilon, 1000, "
    ):
        here(*given, "--teacher", tmp_path / "moved" / "renamed", "--resume", "--iterations", 3)
    settings.write_text(own, encoding="utf-8")
    assert here(*given, "--teacher", tmp_path / "moved" / "renamed", "--resume", "--iterations", 3) == 0


def test_tokens_of_another_width_are_named_on_resuming(tmp_path: Path, here: Callable[..., int]) -> None:
    pipeline, family = tiny_family("stable-diffusion")
    pipeline.save_pretrained(tmp_path / "teacher")
    data, told = tmp_path / "data.safetensors", tiny_conditions(family, 6)
    LatentData(torch.randn(6, *family.shape), told).save(data)
    given = ("train", "--teacher", tmp_path / "teacher", "--data", data, "--out", tmp_path / "out", *TINY)
    assert here(*given) == 0
    told["prompt_embeds"] = torch.cat([told["prompt_embeds"]] * 2, 1)
    LatentData(torch.randn(6, *family.shape), told).save(data)
    with pytest.raises(advloss.StateError, match=r"prompt_embeds of a sample was \[5, 16\], and is \[10, 16\]"):
        here(*given, "--resume")
