"""Caches of the example on pipelines: where they go, and what cannot be one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from diffusers import DiTTransformer2DModel
from PIL import Image

import advloss


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
