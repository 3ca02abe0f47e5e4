"""What the pages say is done here: the tutorial as written, and the Python of the three lines."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]


def test_tutorial(tmp_path: Path) -> None:
    pytest.importorskip("accelerate")
    pytest.importorskip("matplotlib")
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])}
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check", "--target", tmp_path]
    command = [sys.executable, ROOT / ".ci" / "tutorial.py", sys.executable, *options]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    assert "discriminator  gated  gated   Gated linear units, for vectors." in done.stdout
    assert re.search(r"^\d+ ok, 0 failed, \d not applicable$", done.stdout, re.MULTILINE)
    assert "finished after 1500 steps" in done.stdout
    assert "modes 8/8" in done.stdout
    assert "wrote pyproject.toml: 6 lines" in done.stdout


def test_three_lines() -> None:
    import advloss._registry

    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "three-lines.md").read_text(), re.M | re.S)
    names: dict[str, object] = {"__name__": "page"}
    before = dict(advloss._registry._script)
    try:
        for block in blocks:
            exec(compile(block, "three-lines.md", "exec"), names)
    finally:
        advloss._registry._script.clear()
        advloss._registry._script.update(before)
    assert len(blocks) == 2
    assert names["report"].step == 2  # type: ignore[attr-defined]


def test_log_of_the_doctors_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import advloss

    (block,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "doctor.md").read_text(), re.M | re.S)
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "doctor.md", "exec"), {"__name__": "page"})
    log = advloss.read_log(tmp_path / "log.jsonl")
    assert len(log.steps) == 40
    assert log.about["loss"] == "RelativisticPairing"
    assert advloss.diagnose(log).verdict in ("healthy", "sick")


def test_script_of_the_pipelines_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it stands, but for the teacher, the size of images and how long it trains."""
    pytest.importorskip("diffusers")
    from distill_tools import reset_accelerate
    from pipeline_tools import tiny_pipeline, tiny_text

    from advloss_distill import encode, family_of, load_pipeline

    name = "stable-diffusion-3"
    pipeline = tiny_pipeline(name, **tiny_text(name))
    pipeline.save_pretrained(tmp_path / "teacher")
    pairs = [(torch.rand(3, 16, 16) * 2 - 1, prompt) for prompt in ("a fox", "a house")]
    encode(family_of(pipeline, resolution=16), pipeline, pairs).save(tmp_path / "data.safetensors")
    blocks = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs" / "pipelines.md").read_text(), re.M | re.S)
    script = "".join(block for block in blocks if "pipeline = load" in block or "validation = " in block)
    for words, instead in (
        ("stabilityai/stable-diffusion-3.5-medium", "teacher"),
        ("resolution=512", "resolution=16"),
        ("run(5000", "run(2"),
    ):
        assert script.count(words) == 1
        script = script.replace(words, instead)
    monkeypatch.chdir(tmp_path)
    reset_accelerate()
    exec(compile(script, "pipelines.md", "exec"), {"__name__": "page"})
    reset_accelerate()
    assert (tmp_path / "checkpoints" / "step-00000002").is_dir()
    assert (tmp_path / "000500.png").is_file()
    assert type(load_pipeline(str(tmp_path / "out")).transformer) is type(pipeline.transformer)


def test_no_public_name_hides_one_of_pythons() -> None:
    """After ``from advloss_distill import *``, too, ``Path`` is pathlib's."""
    import advloss_distill

    assert "Path" not in advloss_distill.__all__


def test_pages_are_in_the_navigation() -> None:
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.name in config, page.name


def test_site_builds_without_a_warning(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path / "site"]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    api = (tmp_path / "site" / "api" / "index.html").read_text(encoding="utf-8")
    assert "generator_loss" in api
