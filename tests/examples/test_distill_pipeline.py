"""The example on pipelines as its users run it: in processes of its own, on a pipeline in miniature."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from accelerate.state import AcceleratorState
from diffusers import DiffusionPipeline
from distill_pipeline_tools import EXAMPLE, TINY
from distill_tools import differences, reset_accelerate
from PIL import Image
from pipeline_tools import FAMILIES, tiny_conditions, tiny_family, tiny_pipeline
from safetensors.torch import load_file

import advloss
from advloss_distill import LatentData, family_of

WEIGHTS = "diffusion_pytorch_model.safetensors"


def example(*options: object) -> subprocess.CompletedProcess[str]:
    """Runs it in a process of its own."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, str(EXAMPLE), *map(str, options)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, check=False)


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
    given = ("train", "--teacher", teacher, "--data", data, "--out", out, *TINY, "--distillation-weight", 1)
    done = example(*given)
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
    assert here(*given, "--resume", "--iterations", 3) == 0
    assert json.loads((out / "log.jsonl").read_text().splitlines()[-1])["iteration"] == 3


def test_images_with_captions(
    teacher: Path, tmp_path: Path, here: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    folder, data = tmp_path / "images", tmp_path / "data.safetensors"
    folder.mkdir()
    for i, label in enumerate(("goose", "tench", "goose")):
        Image.new("RGB", (20, 30), (120 * i, 0, 0)).save(folder / f"{i}.png")
        (folder / f"{i}.txt").write_text(label + "\n")
    (folder / "2.png").write_bytes(b"no image")
    both = ("--teacher", teacher, "--images", folder)
    assert here("cache", *both, "--data", data, "--device", "cpu") == 0
    assert "1 of 3 images could not be read and were skipped" in (printed := capsys.readouterr().out)
    assert str(folder / "2.png") in printed
    assert LatentData.load(data, family_of(tiny_pipeline("dit"))).told["class_labels"].tolist() == [99, 0]
    assert here("train", *both, "--out", tmp_path / "out", *TINY) == 0  # the same images, encoded when they are drawn
    assert "- Data: `images`" in (tmp_path / "out" / "student" / "README.md").read_text()
    (folder / "1.txt").unlink()
    with pytest.raises(advloss.InputError, match=r"1 of 3 images have no caption: .*1\.png"):
        here("cache", *both, "--data", data, "--device", "cpu")
    with pytest.raises(SystemExit):
        here("train", *both, "--data", data, *TINY)
    assert "not allowed with argument" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["shards", "dataset"])
def test_images_from_elsewhere(
    kind: str, teacher: Path, tmp_path: Path, here: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "source").mkdir()
    Image.new("RGB", (16, 16), (200, 0, 0)).save(tmp_path / "a.png")
    if kind == "shards":
        (tmp_path / "a.txt").write_text("goose")
        with tarfile.open(tmp_path / "source" / "0.tar", "w") as shard:
            for name in ("a.png", "a.txt"):
                shard.add(tmp_path / name, name)
        source: tuple[object, ...] = ("--shards", tmp_path / "source" / "*.tar", "--image-column", "png")
    else:
        features = datasets.Features({"picture": datasets.Image(), "words": datasets.Value("string")})
        rows = {"picture": [Image.open(tmp_path / "a.png")], "words": ["goose"]}
        datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "source" / "test.parquet")
        source = ("--dataset", tmp_path / "source", "--split", "test", "--image-column", "picture")
        source = (*source, "--caption-column", "words")
    data = tmp_path / "data.safetensors"
    assert here("cache", "--teacher", teacher, *source, "--data", data, "--device", "cpu") == 0
    assert LatentData.load(data, family_of(tiny_pipeline("dit"))).told["class_labels"].tolist() == [99]
    assert here("train", "--teacher", teacher, *source, "--out", tmp_path / "out", *TINY) == 0
    card = (tmp_path / "out" / "student" / "README.md").read_text()
    assert f"- Data: `{Path(source[1]).name}`" in card
    assert str(tmp_path) not in card


def test_a_run_is_watched(teacher: Path, tmp_path: Path, here: Callable[..., int]) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    data = tmp_path / "data.safetensors"
    LatentData(torch.randn(6, 4, 8, 8), {"class_labels": torch.arange(6)}).save(data)
    (tmp_path / "prompts.txt").write_text("goose\ntench\ngoose\n")
    both = ("train", "--teacher", teacher, "--data", data, *TINY)
    watched = ("--validate-every", 1, "--teacher-steps", 2, "--validation-prompts", tmp_path / "prompts.txt")
    assert here(*both, "--out", tmp_path / "watched", *watched) == 0
    pictures = sorted((tmp_path / "watched" / "validation").iterdir())
    assert [picture.name for picture in pictures] == ["000001.png", "000002.png"]
    with Image.open(pictures[0]) as picture:
        assert picture.size == (4 * 96, 3 * 96 + 24)
    events = EventAccumulator(str(tmp_path / "watched" / "curves")).Reload()
    assert [event.step for event in events.Scalars("discriminator/real_accuracy")] == [1, 2]
    assert [event.step for event in events.Images("validation")] == [1, 2]
    log = advloss.read_log(tmp_path / "watched" / "log.jsonl")
    assert log.about["loss"] == "Hinge"
    assert len(log.steps) == 2
    AcceleratorState._reset_state(reset_partial_state=True)
    assert here(*both, "--out", tmp_path / "not", "--validate-every", 0, "--tracker", "none") == 0
    assert not {"validation", "curves"} & {path.name for path in (tmp_path / "not").iterdir()}
    weights = [load_file(tmp_path / run / "student" / "transformer" / WEIGHTS) for run in ("watched", "not")]
    assert not differences(*weights)


def test_a_sick_run_is_told(
    teacher: Path, tmp_path: Path, here: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[advloss.Report] = []
    monkeypatch.setattr(advloss.HealthMonitor, "__call__", lambda monitor, report: told.append(report))
    data = tmp_path / "data.safetensors"
    LatentData(torch.randn(6, 4, 8, 8), {"class_labels": torch.arange(6)}).save(data)
    assert here("train", "--teacher", teacher, "--data", data, "--out", tmp_path / "out", *TINY) == 0
    assert [report.step for report in told] == [0, 1]


def test_a_student_is_shared_on_request(
    teacher: Path,
    tmp_path: Path,
    here: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    data, out, called = tmp_path / "data.safetensors", tmp_path / "out", []
    LatentData(torch.randn(6, 4, 8, 8), {"class_labels": torch.arange(6)}).save(data)
    both = ("train", "--teacher", teacher, "--data", data, "--out", out, *TINY, "--push-to-hub", "student", "--private")

    def create(name: str, **options: object) -> SimpleNamespace:
        called.append((name, options, out.exists()))
        return SimpleNamespace(repo_id=f"someone/{name}")

    def upload(*, repo_id: str, folder_path: Path, commit_message: str) -> None:
        called.append((repo_id, sorted(path.name for path in folder_path.iterdir())))

    with pytest.raises(advloss.OptionError, match=r"takes no model 'student' from here .*hf auth login"):
        here(*both)  # offline, and nobody is logged in
    assert not out.exists()
    monkeypatch.setattr(huggingface_hub, "create_repo", create)
    monkeypatch.setattr(huggingface_hub, "upload_folder", upload)
    assert here(*both) == 0
    files = ["README.md", "model_index.json", "scheduler", "transformer", "vae"]
    assert called == [("student", {"private": True, "exist_ok": True}, False), ("someone/student", files)]
    assert "it is shared at https://" in (printed := capsys.readouterr().out)
    assert "/someone/student\n" in printed
    card = (out / "student" / "README.md").read_text()
    assert 'from_pretrained("someone/student")' in card
    assert f"| data | {data.name} |" in card
    monkeypatch.setattr(huggingface_hub, "upload_folder", lambda **options: 1 / 0)
    with pytest.raises(advloss.OptionError, match=r"out/student is whole, but could not be uploaded .*`hf upload"):
        here(*both, "--resume")


def test_optimizers_of_8_bits(
    teacher: Path, tmp_path: Path, here: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tmp_path / "data.safetensors"
    LatentData(torch.randn(6, 4, 8, 8), {"class_labels": torch.arange(6)}).save(data)
    both = ("train", "--teacher", teacher, "--data", data, "--out", tmp_path / "out", *TINY)
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "bitsandbytes.optim", None)
        with pytest.raises(advloss.PluginError, match="--optimizer paged-adamw-8bit needs bitsandbytes: pip install"):
            here(*both, "--optimizer", "paged-adamw-8bit")
        assert not (tmp_path / "out").exists()
    optim = pytest.importorskip("bitsandbytes.optim")
    kinds: list[type] = []
    step = optim.AdamW8bit.update_step
    for kind in (optim.AdamW8bit, optim.PagedAdamW8bit):
        monkeypatch.setattr(kind, "update_step", lambda self, *a: kinds.append(type(self)) or step(self, *a))
    for name, kind in (("adamw-8bit", optim.AdamW8bit), ("paged-adamw-8bit", optim.PagedAdamW8bit)):
        kinds.clear()
        assert here(*both, "--optimizer", name, "--out", tmp_path / name) == 0
        assert set(kinds) == {kind}


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
    with pytest.raises(SystemExit):
        here(*both[:-2], "--adapter", "--out", tmp_path / "out")
    assert "--adapter saves what --lora RANK trains" in capsys.readouterr().err


def test_the_precision_of_accelerate_launch_is_known_and_recorded(
    tmp_path: Path, here: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, family = tiny_family("stable-diffusion")
    pipeline.save_pretrained(tmp_path / "teacher")
    data, out = tmp_path / "data.safetensors", tmp_path / "out"
    given = ("train", "--teacher", tmp_path / "teacher", "--data", data, "--out", out, *TINY, "--validate-every", 0)

    def with_precision(precision: str, *options: object) -> str:
        reset_accelerate()
        monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", precision)
        assert here(*given, *options) == 0
        return capsys.readouterr().out

    long = with_precision("no", "--dry-run")  # before there are any data: prompts as long as the family's
    LatentData(torch.randn(6, *family.shape), tiny_conditions(family, 6)).save(data)
    short, half = (with_precision(precision, "--dry-run") for precision in ("no", "bf16"))
    assert len({long, short, half}) == 3
    with pytest.raises(advloss.OptionError, match="mixed precision fp16 on the cpu: Accelerate would compute in 32"):
        with_precision("fp16")
    assert not out.exists()
    with_precision("bf16")
    assert "| mixed_precision | bf16 |" in (out / "student" / "README.md").read_text()
    assert json.loads((out / "checkpoints" / "settings.json").read_text())["mixed_precision"] == "bf16"
    with pytest.raises(advloss.StateError, match="begun otherwise: mixed_precision was bf16, and is no"):
        with_precision("no", "--resume")


def test_the_card_of_a_run_without_an_adversary(teacher: Path, tmp_path: Path, here: Callable[..., int]) -> None:
    data, out = tmp_path / "data.safetensors", tmp_path / "out"
    LatentData(torch.randn(6, 4, 8, 8), {"class_labels": torch.arange(6)}).save(data)
    both = ("train", "--teacher", teacher, "--data", data, "--out", out, *TINY, "--lora", 2)
    assert here(*both, "--licence", "mit", "--method", "lcm") == 0
    with pytest.raises(advloss.LogError, match="is of a run without a discriminator"):
        advloss.read_log(out / "log.jsonl")
    card = (out / "student" / "README.md").read_text()
    assert "license: mit" in card
    assert "adversarial" not in card
    assert str(tmp_path) not in card


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (
            "add",
            ("--discriminator", "dino:backbone=test_vit,pretrained=False,resolution=32", "--crop", 8, "--chunk", 4),
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
    assert "| None |" not in card
    assert "| distillation_weight |" in card or method == "adversarial"  # the method's own
    assert ("distillation_loss" in card) == (method != "adversarial")
    assert here(*given, "--resume", "--iterations", 3) == 0
    assert json.loads((out / "log.jsonl").read_text().splitlines()[-1])["iteration"] == 3
