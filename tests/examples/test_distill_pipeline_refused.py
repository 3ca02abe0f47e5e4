"""What the example on pipelines refuses, before it trains and when it goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import DiTTransformer2DModel
from distill_pipeline_tools import TINY
from lumina_tools import Lumina, installed, lumina_conditions, tiny_lumina
from PIL import Image
from pipeline_tools import ENCODERS, FAMILIES, tiny_conditions, tiny_family, tiny_pipeline, tiny_text, tiny_unet
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


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--method", "add", "--crop", 4000), "crop=4000; a window of 16 x 16 pixels has a side of 2 to 16"),
        (("--guidance", 4), "the method ladd takes no guidance"),
        (("--distillation-weight", -1), r"distillation_weight=-1\.0"),
        (("--steps", 4, 4), "none of them twice"),
        (("--lora", -3), "rank=-3 is no rank of an adapter"),
        (("--method", "dmd2", "--guidance", -4), r"guidance=-4\.0: give a finite scale"),
        (("--method", "lcm", "--guidance", "nan"), "guidance=nan: give a finite scale"),
        (("--batch-size", 2), "too small for the 5 steps"),
        (("--ema", 2), r"ema_decay=2\.0"),
        (("--blocks", 9), r"blocks \[9\]"),
        (("--blocks", 0, 0), r"blocks \[0, 0\]: one is given twice"),
        (("--lora", 2, "--adapter"), "a DiTPipeline loads no adapters"),
        (("--mixed-precision", "fp16"), "mixed precision fp16 on the cpu"),
    ],
    ids=lambda given: "".join(map(str, given)) if isinstance(given, tuple) else "",
)
@pytest.mark.parametrize("there", [True, False])
def test_a_dry_run_refuses_what_training_does(
    there: bool, options: tuple[object, ...], error: str, teacher: Path, tmp_path: Path, here: Callable[..., int]
) -> None:
    data = tmp_path / "data.safetensors"
    if there:
        LatentData(torch.randn(6, 4, 8, 8), {"class_labels": torch.arange(6)}).save(data)
    with pytest.raises(advloss.AdvlossError, match=error):
        here("train", "--teacher", teacher, "--data", data, *TINY, *options, "--dry-run")


@pytest.mark.parametrize("run", [(), ("--dry-run",)], ids=["training", "dry run"])
@pytest.mark.parametrize(
    ("given", "error"),
    [
        (("--images", "nowhere"), "there is no image in .*nowhere"),
        (("--images", "untold"), "1 of 1 images have no caption"),
        (("--images", "broken"), "1 of 1 images could not be read"),
        (("--images", "strange"), "'gose' is none of them; near it: goose"),
        (("--shards", "nowhere/*.tar"), "no file is named .*nowhere"),
        (("--data", "data.safetensors", "--validation-prompts", "nowhere"), "No such file .*nowhere"),
        (("--data", "data.safetensors", "--validation-prompts", "unknown"), "'gose' is none of them; near it: goose"),
        (("--data", "unknown.safetensors"), "knows 1000 classes, 0 to 999, and 1 of 6 samples"),
    ],
    ids=lambda given: "".join(given) if isinstance(given, tuple) else "",
)
def test_a_dry_run_looks_at_what_is_given(
    given: tuple[str, ...],
    error: str,
    run: tuple[str, ...],
    teacher: Path,
    tmp_path: Path,
    here: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("untold", "broken"):
        Path(folder).mkdir()
        Path(folder, "a.png").write_bytes(b"no image")
    Path("broken", "a.txt").write_text("goose")
    Path("strange").mkdir()
    Image.new("RGB", (64, 64)).save(Path("strange", "a.png"))
    Path("strange", "a.txt").write_text("gose")
    Path("unknown").write_text("goose\ngose\n")
    labels = torch.arange(6)
    LatentData(torch.randn(6, 4, 8, 8), {"class_labels": labels}).save(Path("data.safetensors"))
    LatentData(torch.randn(6, 4, 8, 8), {"class_labels": 200 * labels}).save(Path("unknown.safetensors"))
    with pytest.raises((advloss.AdvlossError, OSError), match=error):
        here("train", "--teacher", teacher, *given, *TINY, "--validate-every", 1, *run)
    assert not Path("runs").exists()


@pytest.mark.parametrize("name", sorted(FAMILIES))
@pytest.mark.parametrize("method", ["add", "dmd2", "lcm-ladd"])
def test_a_dry_run_builds_what_training_does(
    name: str, method: str, tmp_path: Path, here: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = tiny_pipeline(name, **(tiny_text(name) if name in ENCODERS else {}))
    pipeline.save_pretrained(tmp_path / "teacher")
    options = ("--discriminator", "dino:backbone=test_vit,pretrained=False,resolution=32") if method == "add" else ()
    if name != "flux":
        options = (*options, "--guidance", 3)  # asks the text encoders
    given = ("train", "--teacher", tmp_path / "teacher", "--data", tmp_path / "none", *TINY, "--resolution")
    assert here(*given, FAMILIES[name].side, "--method", method, *options, "--dry-run") == 0
    assert "GB" in capsys.readouterr().out


def test_a_strangers_family_is_trained_and_counted(
    tmp_path: Path, here: Callable[..., int], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    installed(tmp_path, monkeypatch)
    pipeline = tiny_lumina()
    pipeline.save_pretrained(tmp_path / "teacher")
    data = tmp_path / "data.safetensors"
    LatentData(torch.randn(6, *Lumina(pipeline, resolution=64).shape), lumina_conditions(6)).save(data)
    given = ("train", "--teacher", tmp_path / "teacher", "--data", data, "--out", tmp_path / "out", *TINY)
    given = (*given, "--resolution", 64, "--validate-every", 0)
    assert here(*given, "--dry-run") == 0
    assert "GB" in capsys.readouterr().out
    assert here(*given) == 0


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


@pytest.mark.parametrize(
    ("options", "error"),
    [
        (("--guidance", "nan"), "guidance_scale=nan: give a finite scale"),
        (("--guidance", "inf"), "guidance_scale=inf: give a finite scale"),
        (("--guidance", -2), r"guidance_scale=-2\.0: give a finite scale that is not negative"),
        (("--teacher-steps", 2000), r"2000 steps of sampling \(--teacher-steps\): this DiTPipeline has 1 to 1000"),
        (("latin-1",), r"prompts\.txt is no text in UTF-8 \(.*\): save it as such"),
        (("utf-16",), r"prompts\.txt is no text in UTF-8 \(.*\): save it as such"),
    ],
    ids=lambda given: "".join(map(str, given)) if isinstance(given, tuple) else "",
)
def test_a_cache_that_cannot_be_is_refused_before_it_is_computed(
    options: tuple[object, ...],
    error: str,
    teacher: Path,
    tmp_path: Path,
    here: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kind = str(options[0]) if len(options) == 1 else "utf-8"
    (tmp_path / "prompts.txt").write_bytes("goose\nGänse\n".encode(kind) if len(options) == 1 else b"goose\n")
    monkeypatch.setattr(DiTTransformer2DModel, "forward", lambda *args, **options: pytest.fail("computed"))
    given = ("cache", "--teacher", teacher, "--prompts", tmp_path / "prompts.txt", "--data", tmp_path / "data")
    with pytest.raises(advloss.AdvlossError, match=error):
        here(*given, "--device", "cpu", *(options if len(options) > 1 else ()))


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


@pytest.mark.parametrize("source", ["--prompts", "--images"])
@pytest.mark.parametrize(
    ("data", "error"),
    [
        ("folder", r"folder is a folder: give a file in it, such as .*folder/data\.safetensors"),
        ("file/data.safetensors", "cannot be written: .*file is no folder"),
        ("new/data.safetensors", r"needs .* GB, and 0\.0 GB are free on its disk \(2 samples of 0\.00103 MB\)"),
    ],
)
def test_where_a_cache_goes_is_checked_before_it_is_computed(
    source: str,
    data: str,
    error: str,
    teacher: Path,
    tmp_path: Path,
    here: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = tmp_path / "given"
    if source == "--prompts":
        given.write_text("goose\ntench\n")
    else:
        given.mkdir()
        for name in ("a", "b"):
            Image.new("RGB", (16, 16)).save(given / f"{name}.png")
            (given / f"{name}.txt").write_text("goose")
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    if data.startswith("new"):
        monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
    monkeypatch.setattr("advloss_distill._latent_data.LatentData.save", lambda *args: pytest.fail("computed"))
    with pytest.raises(advloss.OptionError, match=error):
        here("cache", "--teacher", teacher, source, given, "--data", tmp_path / data, "--device", "cpu")


def test_a_cache_makes_its_folder(teacher: Path, tmp_path: Path, here: Callable[..., int]) -> None:
    (tmp_path / "prompts.txt").write_text("goose\n")
    data = tmp_path / "new" / "deeper" / "data.safetensors"
    made = ("cache", "--teacher", teacher, "--prompts", tmp_path / "prompts.txt", "--data", data, "--teacher-steps", 2)
    assert here(*made, "--device", "cpu") == 0
    assert data.is_file()
