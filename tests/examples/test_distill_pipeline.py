"""The example on pipelines as its users run it: in processes of its own, on a pipeline in miniature."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from PIL import Image

sys.path.append(str(Path(__file__).parents[1] / "integrations"))
from distill_tools import reset_accelerate
from pipeline_tools import FAMILIES, tiny_conditions, tiny_family, tiny_pipeline

import advloss
from advloss_distill import LatentData, family_of

EXAMPLE = Path(__file__).parents[2] / "examples" / "distill_pipeline.py"
TINY = ["--cpu", "--batch-size", "8", "--iterations", "2", "--resolution", "16", "--save-every", "1"]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., int]]:
    """Runs the example in this process, which has imported what it takes seconds to import."""
    module = runpy.run_path(str(EXAMPLE))
    reset_accelerate()

    def run(*options: object) -> int:
        monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *map(str, options)])
        return module["main"]()

    yield run
    reset_accelerate()


def example(*options: object) -> subprocess.CompletedProcess[str]:
    """Runs it in a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(EXAMPLE), *map(str, options)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, check=False)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DiT, whose classes need no text encoder."""
    folder = tmp_path_factory.mktemp("dit")
    pipeline = tiny_pipeline("dit")
    pipeline.register_to_config(id2label={0: "tench, Tinca tinca", 99: "goose"})
    pipeline.save_pretrained(folder / "teacher")
    (folder / "teacher" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n")
    return folder / "teacher"


def test_from_a_teacher_to_a_student_that_plain_diffusers_opens(
    teacher: Path, tmp_path: Path, here: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "prompts.txt").write_text("tench\ngoose\n\ngoose\n")
    data, out = tmp_path / "data.safetensors", tmp_path / "out"
    made = here(
        *("cache", "--teacher", teacher, "--prompts", tmp_path / "prompts.txt", "--data", data),
        *("--resolution", 16, "--teacher-steps", 2, "--device", "cpu"),
    )
    assert made == 0
    assert "3 samples are in" in capsys.readouterr().out
    done = example("train", "--teacher", teacher, "--data", data, "--out", out, *TINY, "--distillation-weight", 1)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"the student is in {out / 'student'}" in done.stdout
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [1, 2]
    assert "license: cc-by-nc-4.0" in (out / "student" / "README.md").read_text()
    opened = DiffusionPipeline.from_pretrained(out / "student")
    opened.set_progress_bar_config(disable=True)
    for steps in (1, 2, 4):
        images = opened(class_labels=[0, 99], num_inference_steps=steps, guidance_scale=0, output_type="pt").images
        assert images.isfinite().all()
        assert opened.scheduler.timesteps.tolist() == [999, 749, 499, 249][:: 4 // steps]
    before, after = tiny_pipeline("dit").transformer, opened.transformer
    assert not torch.equal(before.pos_embed.proj.weight, after.pos_embed.proj.weight)
    assert here("train", "--teacher", teacher, "--data", data, "--out", out, *TINY, "--resume", "--iterations", 3) == 0
    assert json.loads((out / "log.jsonl").read_text().splitlines()[-1])["iteration"] == 3


def test_images_with_captions(teacher: Path, tmp_path: Path, here: Callable[..., int]) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for i, label in enumerate(("goose", "tench")):
        Image.new("RGB", (20, 30), (250 * i, 0, 0)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(label + "\n")
    options = (
        "cache",
        "--teacher",
        teacher,
        "--images",
        folder,
        "--data",
        tmp_path / "data.safetensors",
        "--device",
        "cpu",
    )
    assert here(*options) == 0
    data = LatentData.load(tmp_path / "data.safetensors", family_of(tiny_pipeline("dit")))
    assert data.told["class_labels"].tolist() == [99, 0]
    (folder / "1.txt").unlink()
    with pytest.raises(advloss.InputError, match=r"1\.png has no caption: write one to .*1\.txt"):
        here(*options)


def test_an_adapter_and_a_dry_run(tmp_path: Path, here: Callable[..., int], capsys: pytest.CaptureFixture[str]) -> None:
    pipeline, family = tiny_family("stable-diffusion")
    pipeline.save_pretrained(tmp_path / "teacher")
    condition = tiny_conditions(family, 6)
    LatentData(torch.randn(6, *family.shape), condition).save(tmp_path / "data.safetensors")
    both = ("train", "--teacher", tmp_path / "teacher", "--data", tmp_path / "data.safetensors", *TINY, "--lora", 2)
    assert here(*both, "--dry-run", "--out", tmp_path / "out") == 0
    assert "activations" in capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert here(*both, "--adapter", "--out", tmp_path / "out", "--gradient-checkpointing", "--steps", 1, 4) == 0
    pipeline.load_lora_weights(tmp_path / "out" / "student")
    assert "default_0" in pipeline.unet.peft_config
    call = {**FAMILIES["stable-diffusion"].call, "num_inference_steps": 1, "guidance_scale": 0, "output_type": "pt"}
    assert pipeline(**family.arguments(condition), **call).images.isfinite().all()


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (
            "add",
            ("--discriminator", "dino:backbone=test_vit,pretrained=false,resolution=32", "--crop", 8, "--chunk", 4),
        ),
        ("dmd2", ("--guidance", 1.5, "--discriminator-steps", 2, "--r1", "head-inputs", "--r1-weight", 1e-4)),
        ("lcm", ("--guidance", 3, "--skip", 50)),
        ("lcm-ladd", ("--misaligned", 0.5, "--backward-simulation")),
        (
            "adversarial",
            ("--pixels", "--discriminator", "projection:resolution=16,width=8", "--no-backward-simulation"),
        ),
    ],
)
def test_methods(method: str, options: tuple, teacher: Path, tmp_path: Path, here: Callable[..., int]) -> None:
    data, out = tmp_path / "data.safetensors", tmp_path / "out"
    family = family_of(tiny_pipeline("dit"), resolution=16)
    LatentData(torch.randn(10, *family.shape), tiny_conditions(family, 10)).save(data)
    given = ("train", "--teacher", teacher, "--data", data, "--out", out, *TINY, "--method", method, *options)
    assert here(*given) == 0
    opened = DiffusionPipeline.from_pretrained(out / "student")
    opened.set_progress_bar_config(disable=True)
    images = opened(class_labels=[0, 9], num_inference_steps=4, guidance_scale=0, output_type="pt").images
    assert images.isfinite().all()
    card = (out / "student" / "README.md").read_text()
    assert f"| method | {method} |" in card
    assert ("distillation_loss" in card) == (method != "adversarial")
    assert here(*given, "--resume", "--iterations", 3) == 0
    assert json.loads((out / "log.jsonl").read_text().splitlines()[-1])["iteration"] == 3


def test_a_method_is_told_what_it_takes(teacher: Path, tmp_path: Path, here: Callable[..., int]) -> None:
    data = tmp_path / "data.safetensors"
    family = family_of(tiny_pipeline("dit"), resolution=16)
    LatentData(torch.randn(10, *family.shape), tiny_conditions(family, 10)).save(data)
    both = ("train", "--teacher", teacher, "--data", data, "--out", tmp_path / "out", *TINY)
    with pytest.raises(advloss.OptionError, match="the method lcm takes no crop; it takes guidance, skip"):
        here(*both, "--method", "lcm", "--crop", 8)
    with pytest.raises(advloss.OptionError, match=r"--guidance \[2.0, 3.0\]: dmd2 takes one scale; a range is for lcm"):
        here(*both, "--method", "dmd2", "--guidance", 2, 3)
    with pytest.raises(advloss.OptionError, match="is told classes: there is no negative prompt"):
        here(
            *both,
            "--method",
            "add",
            "--score-weights",
            "nfsd",
            "--discriminator",
            "dino:backbone=test_vit,pretrained=false",
        )


def test_guidance_without_a_text_encoder(tmp_path: Path, here: Callable[..., int]) -> None:
    pipeline, family = tiny_family("stable-diffusion")
    pipeline.save_pretrained(tmp_path / "teacher")
    LatentData(torch.randn(6, *family.shape), tiny_conditions(family, 6)).save(tmp_path / "data.safetensors")
    both = ("train", "--teacher", tmp_path / "teacher", "--data", tmp_path / "data.safetensors", *TINY)
    with pytest.raises(advloss.OptionError, match="loaded without its text encoder"):
        here(*both, "--out", tmp_path / "out", "--method", "lcm", "--guidance", 3, 9)


def test_a_teacher_of_no_family_is_refused_before_training(tmp_path: Path, here: Callable[..., int]) -> None:
    tiny_pipeline("stable-diffusion").save_pretrained(tmp_path / "teacher")
    index = tmp_path / "teacher" / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "StableDiffusionInpaintPipeline"))
    with pytest.raises(
        advloss.UnknownComponentError, match=r"StableDiffusionInpaintPipeline.*advloss_distill_families"
    ):
        here("train", "--teacher", tmp_path / "teacher", "--data", tmp_path / "none", *TINY)
