"""What the example on pipelines refuses before it trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from distill_pipeline_tools import TINY
from PIL import Image
from pipeline_tools import tiny_conditions, tiny_family, tiny_pipeline, tiny_text, tiny_unet
from safetensors.torch import load_file

import advloss
from advloss_distill import LatentData, family_of
from advloss_distill._signature import signature


def test_an_adapter_that_nothing_loads_is_refused_before_training(
    teacher: Path, tmp_path: Path, here: Callable[..., int]
) -> None:
    data, out = tmp_path / "data.safetensors", tmp_path / "out"
    LatentData(torch.randn(6, 4, 8, 8), {"class_labels": torch.arange(6)}).save(data)
    both = ("train", "--teacher", teacher, "--data", data, "--out", out, *TINY, "--lora", 2)
    with pytest.raises(advloss.OptionError, match=r"a DiTPipeline loads no adapters; .*leave out --adapter"):
        here(*both, "--adapter")
    assert not out.exists()


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


def test_data_of_another_text_encoder(tmp_path: Path, here: Callable[..., int]) -> None:
    tiny_pipeline("stable-diffusion", unet=tiny_unet(cross_attention_dim=24)).save_pretrained(tmp_path / "teacher")
    _, family = tiny_family("stable-diffusion")
    data, out = tmp_path / "data.safetensors", tmp_path / "out"
    LatentData(torch.randn(6, *family.shape), tiny_conditions(family, 6)).save(data)
    both = ("train", "--teacher", tmp_path / "teacher", "--data", data, *TINY, "--out", out)
    for options in ((), ("--dry-run",)):
        with pytest.raises(
            advloss.InputError, match=r"data\.safetensors is not for this teacher: .*prompt_embeds \(5, 16\)"
        ):
            here(*both, *options)
    assert not out.exists()


def test_guidance_without_a_text_encoder(tmp_path: Path, here: Callable[..., int]) -> None:
    pipeline, family = tiny_family("stable-diffusion")
    pipeline.save_pretrained(tmp_path / "teacher")
    LatentData(torch.randn(6, *family.shape), tiny_conditions(family, 6)).save(tmp_path / "data.safetensors")
    both = ("train", "--teacher", tmp_path / "teacher", "--data", tmp_path / "data.safetensors", *TINY)
    with pytest.raises(advloss.OptionError, match="loaded without its text encoder"):
        here(*both, "--out", tmp_path / "out", "--method", "lcm", "--guidance", 3, 9)
    (tmp_path / "prompts.txt").write_text("a goose\n")
    both = (*both, "--out", tmp_path / "out", "--validate-every", 1)
    for run in ((), ("--dry-run",)):
        with pytest.raises(advloss.OptionError, match=r"scale=7\.5: take 1 .*--validation-guidance 1.*-every 0"):
            here(*both, *run)
        with pytest.raises(advloss.OptionError, match="this StableDiffusionPipeline has no text encoder"):
            here(*both, "--validation-guidance", 1, "--validation-prompts", tmp_path / "prompts.txt", *run)


@pytest.mark.parametrize("method", ["lcm", "ladd", "dmd2", "adversarial"])
@pytest.mark.parametrize("lora", [0, 2])
def test_room_is_asked_for_what_is_written(
    method: str, lora: int, tmp_path: Path, here: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline, family = tiny_family("stable-diffusion")
    pipeline.save_pretrained(tmp_path / "teacher")
    LatentData(torch.randn(6, *family.shape), tiny_conditions(family, 6)).save(tmp_path / "data.safetensors")
    asked: list[float] = []
    monkeypatch.setattr("advloss_distill._room.check_free", lambda folder, needed, what="": asked.append(needed))
    both = (
        "train",
        "--teacher",
        tmp_path / "teacher",
        "--data",
        tmp_path / "data.safetensors",
        *TINY,
    )
    more = ("--discriminator", "projection:width=16,resolution=8") if method == "adversarial" else ()
    given = (*both, "--out", tmp_path / "out", "--validate-every", 0, "--lora", lora, "--method", method, *more)
    assert here(*given) == 0
    one, outcome = (
        sum(
            tensor.nbytes
            for file in (tmp_path / "out" / part).rglob("*.safetensors")
            for tensor in load_file(file).values()
        )
        for part in ("checkpoints", "student")
    )  # the files' headers, of names alone, are large in miniature
    assert asked[0] == pytest.approx(one + max(one, outcome), rel=0.05)
    there = sum(file.stat().st_size for file in (tmp_path / "out" / "checkpoints").glob("step-*/*"))
    assert here(*given, "--resume", "--iterations", 3) == 0
    assert asked[1] == asked[0] - there  # its place will be free


def test_a_teacher_of_no_family_is_refused_before_training(tmp_path: Path, here: Callable[..., int]) -> None:
    tiny_pipeline("stable-diffusion").save_pretrained(tmp_path / "teacher")
    index = tmp_path / "teacher" / "model_index.json"
    index.write_text(index.read_text().replace("StableDiffusionPipeline", "StableDiffusionInpaintPipeline"))
    with pytest.raises(
        advloss.UnknownComponentError, match=r"StableDiffusionInpaintPipeline.*advloss_distill_families"
    ):
        here("train", "--teacher", tmp_path / "teacher", "--data", tmp_path / "none", *TINY)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--steps", 0), "steps=0"),
        (("--steps", 1, -2), "give numbers of steps from 1 to 1, none of them twice"),
        (("--steps", 4, 4), "give numbers of steps from 1 to 4, none of them twice"),
        (("--steps", 1, 1001), "steps=1001; a student has from 1 to 1000"),
        (("--resolution", 17), "multiples of 4"),
        (("--resolution", 32), "images of 16 pixels alone"),
        (("--blocks", 9), "blocks \\[9\\]"),
        (("--batch-size", 2), "too small for the 5 steps"),
        (("--prompts-without-text",), "there is no prompt in"),
        (("--other-vae",), "made with another VAE"),
        (("--no-room",), "out needs .* GB, and 0.0 GB are free"),
        (("--no-data",), "there is no file .*data.safetensors: make it with"),
        (("--no-such-class",), r"'gose' is none of them; near it: goose"),
        (("--ema", 2), "ema_decay=2.0"),
        (("--ema", -1), "ema_decay=-1.0"),
        (("--renoise", 1, -1), "mean=1.0, std=-1.0: give a finite mean"),
        (("--steps", 600), "too small for the 600 steps of sampling in 600: give"),
    ],
    ids=lambda given: "".join(map(str, given)) if isinstance(given, tuple) else "",
)
def test_what_cannot_work_is_refused_before_training(
    options: tuple[object, ...],
    error: str,
    teacher: Path,
    tmp_path: Path,
    here: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, out = tmp_path / "data.safetensors", tmp_path / "out"
    vae = tiny_pipeline("dit").vae
    latents = LatentData(torch.randn(6, 4, 8, 8), {"class_labels": torch.arange(6)}, signature(vae))
    given: tuple[object, ...] = (
        "train",
        "--teacher",
        teacher,
        "--data",
        data,
        "--out",
        out,
        *TINY,
        "--validate-every",
        1,
    )
    match options[0]:
        case "--prompts-without-text":
            (tmp_path / "prompts.txt").write_text("\n \n")
            options = ("--validation-prompts", tmp_path / "prompts.txt")
        case "--no-such-class":
            (tmp_path / "prompts.txt").write_text("goose\ngose\n")
            options = ("--validation-prompts", tmp_path / "prompts.txt")
        case "--other-vae":
            latents.vae, options = 1.1 * latents.vae, ()
        case "--no-room":
            monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10_000))
            options = ()
        case "--no-data":
            data, options = tmp_path / "none", ()
    latents.save(data)
    with pytest.raises(advloss.AdvlossError, match=error):
        here(*given, *options)
    assert not out.exists()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--lr", -1), "argument --lr: -1: give a number above 0"),
        (("--discriminator-lr", "nan"), "argument --discriminator-lr: nan: give a number above 0"),
        (("--seed", -1), "argument --seed: -1: give a whole number from 0 to 2147483647"),
        (("--pictures", 0), "argument --pictures: 0: give a whole number, at least 1"),
        (("--tracker", "nonsense"), "argument --tracker: invalid choice: 'nonsense'"),
    ],
)
def test_options_out_of_range(
    options: tuple[object, ...], error: str, here: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        here("train", "--teacher", "none", "--data", "none", *options)
    assert error in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--teacher-steps", 2000), "2000 steps of sampling"),
        (("--validation-guidance", "nan"), "guidance_scale=nan: give a finite scale"),
        (("--validation-guidance", -1), r"guidance_scale=-1\.0: give a finite scale"),
    ],
    ids=lambda given: "".join(map(str, given)) if isinstance(given, tuple) else "",
)
def test_pictures_that_cannot_be_are_refused_before_training(
    options: tuple[object, ...], error: str, teacher: Path, tmp_path: Path, here: Callable[..., int]
) -> None:
    data, out = tmp_path / "data.safetensors", tmp_path / "out"
    LatentData(torch.randn(6, 4, 8, 8), {"class_labels": torch.arange(6)}).save(data)
    given = ("train", "--teacher", teacher, "--data", data, "--out", out, *TINY, "--validate-every", 1)
    with pytest.raises(advloss.OptionError, match=error):
        here(*given, *options)
    assert not out.exists()


@pytest.mark.parametrize("command", ["cache --prompts none", "train", "train --dry-run"])
def test_more_positions_than_a_teacher_has(command: str, tmp_path: Path, here: Callable[..., int]) -> None:
    tiny_pipeline("stable-diffusion-3").save_pretrained(tmp_path / "teacher")
    given = ("--teacher", tmp_path / "teacher", "--data", tmp_path / "data.safetensors", "--resolution")
    with pytest.raises(advloss.OptionError, match=r"resolution=64; this \S+ makes images of 32 pixels a side at most"):
        here(*command.split(), *given, 64)
    assert here("train", *given, 32, "--validate-every", 0, "--dry-run", "--cpu") == 0


def test_images_need_the_vae(tmp_path: Path, here: Callable[..., int]) -> None:
    pipeline = tiny_pipeline("stable-diffusion", vae=None, **tiny_text("stable-diffusion"))
    pipeline.save_pretrained(tmp_path / "teacher")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "images" / "a.png")
    (tmp_path / "images" / "a.txt").write_text("a fox")
    both = ("--teacher", tmp_path / "teacher", "--resolution", 64)
    images, data, out = (*both, "--images", tmp_path / "images"), tmp_path / "data.safetensors", tmp_path / "out"
    with pytest.raises(advloss.OptionError, match="without its VAE, and images are encoded by it: load it, too"):
        here("cache", *images, "--data", data, "--device", "cpu")
    for command in (("train",), ("train", "--dry-run")):
        with pytest.raises(advloss.OptionError, match="without its VAE, and images are encoded by it: load it, too"):
            here(*command, *images, "--out", out, "--cpu")
    (tmp_path / "prompts.txt").write_text("a fox\na house\n")
    made = ("cache", *both, "--prompts", tmp_path / "prompts.txt", "--data", data, "--device", "cpu")
    assert here(*made, "--teacher-steps", 2) == 0
    given = ("train", "--data", data, "--out", out, *TINY, *both)
    with pytest.raises(advloss.OptionError, match=r"pictures are decoded by it: .* none \(--validate-every 0\)"):
        here(*given, "--validate-every", 1)
    assert not out.exists()
    assert here(*given, "--validate-every", 0) == 0
