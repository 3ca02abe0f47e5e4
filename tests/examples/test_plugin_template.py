"""`examples/plugin-template` is what `advloss new` writes; it installs, and its own tests pass."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from advloss import OptionError
from advloss._new import template, write_plugin

TEMPLATE = Path(__file__).parents[2] / "examples" / "plugin-template"


def files(folder: Path) -> dict[str, str]:
    made = (".pytest_cache", "__pycache__", ".ruff_cache")
    paths = [p for p in folder.rglob("*") if p.is_file() and not set(p.parts) & set(made)]
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_example_is_the_output() -> None:
    assert files(TEMPLATE) == template("wavelet")


@pytest.mark.parametrize(
    ("name", "module", "class_name"),
    [
        ("gabor-bank", "advloss_gabor_bank", "GaborBank"),
        ("my-wavelet", "advloss_my_wavelet", "MyWavelet"),
        ("wavelet2", "advloss_wavelet2", "Wavelet2"),
        ("class", "advloss_class", "Class"),
    ],
)
def test_another_name_changes_the_name_and_nothing_else(
    name: str, module: str, class_name: str, tmp_path: Path
) -> None:
    """Also a name that has the first one in it; a paper's title stays."""
    folder = tmp_path / "plugin"
    assert folder / module / "_plugin.py" in write_plugin(name, folder)
    written = files(folder)
    assert set(written) == {
        p.replace("test_wavelet", f"test_{module[8:]}").replace("advloss_wavelet", module) for p in template("wavelet")
    }
    hooks = written[f"{module}/_plugin.py"]
    assert '"SWAGAN: A Style-based Wavelet-driven Generative Model"' in hooks
    assert f'target="{module}._discriminator:{class_name}Discriminator"' in hooks
    assert f'name="{name}-smooth"' in hooks
    assert f"class {class_name}Discriminator(nn.Module)" in written[f"{module}/_discriminator.py"]
    assert f'name = "{name}/{name}-smooth"' in written[f"tests/test_{module[8:]}.py"]
    assert f'name = "advloss-{name}"' in written["pyproject.toml"]
    assert f'{name} = "{module}._plugin"' in written["pyproject.toml"]
    assert f"advloss check {name}\n" in written[".github/workflows/test.yml"]
    for path, text in written.items():
        if "wavelet" not in name:
            assert "wavelet" not in path + text.lower().replace("style-based wavelet", ""), path
        if path.endswith(".py"):
            compile(text, path, "exec")


@pytest.mark.parametrize("name", ["Wavelet", "two words", "-x", "", "../up", "a--b"])
def test_names_that_no_distribution_has(name: str, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="use lower case"):
        write_plugin(name, tmp_path / "x")
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        *((point.name, "an installed plugin") for point in entry_points(group="advloss")),
        ("distill", "the installed package advloss_distill"),
        ("some-one", "the installed package advloss_some_one"),
        ("script", "the components that a script registers"),
    ],
)
def test_names_that_somebody_has(name: str, owner: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed, `advloss-losses` would overwrite the losses that everybody has."""
    (tmp_path / "advloss_some_one.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(OptionError, match=f"plugin name '{name}' is taken by {owner}; choose another"):
        write_plugin(name, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(OptionError, match="is there already"):
        write_plugin("wavelet", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_it_installs_and_its_tests_pass(tmp_path: Path) -> None:
    """Built by its own backend from a copy, as anyone would; tests run away from the sources."""
    source, site = tmp_path / "source", tmp_path / "site"
    shutil.copytree(TEMPLATE, source)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    subprocess.run(
        [sys.executable, "-m", "pip", "install", *options, "--target", site, source], check=True, timeout=300
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])}
    tests = tmp_path / "tests"
    shutil.copytree(source / "tests", tests)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", tests, tests]
    done = subprocess.run(command, cwd=tests, env=env, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    listed = subprocess.run(
        [sys.executable, "-m", "advloss", "list", "wavelet/*"], env=env, capture_output=True, text=True, check=True
    )
    assert [line.split()[:3] for line in listed.stdout.splitlines()[1:]] == [
        ["discriminator", "wavelet", "wavelet"],
        ["loss", "wavelet-smooth", "wavelet"],
    ]
