"""What a dry run of the example on pipelines refuses, and what it counts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from distill_pipeline_tools import TINY
from lumina_tools import Lumina, installed, lumina_conditions, tiny_lumina
from PIL import Image
from pipeline_tools import ENCODERS, FAMILIES, tiny_pipeline, tiny_text

import advloss
from advloss_distill import LatentData


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
