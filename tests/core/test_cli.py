"""The command line: reports on stdout, errors in one line on stderr with exit code 1."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from core_tools import built_in
from plugin_folder import install, run

import advloss
from advloss._cli import main


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    return json.loads(said(capsys, *arguments, "--json"))


def test_list_is_a_table_of_everything(capsys: pytest.CaptureFixture[str]) -> None:
    lines = said(capsys, "list").splitlines()
    assert lines[0].split() == ["KIND", "NAME", "PLUGIN", "SUMMARY"]
    table = {tuple(line.split()[:3]) for line in lines[1:]}
    assert table == {(row.kind, row.name, row.plugin) for row in advloss.list_components()}
    assert "Hinge loss" in next(line for line in lines if line.startswith("loss") and " hinge " in line)


def test_list_narrows(capsys: pytest.CaptureFixture[str]) -> None:
    assert {row["kind"] for row in as_json(capsys, "list", "--kind", "loss")} == {"loss"}
    assert {row["name"] for row in as_json(capsys, "list", "*wgan*")} == {"wgan", "wgan-gp"}
    assert {row["plugin"] for row in as_json(capsys, "list", "regularizers/*")} == {"regularizers"}
    assert len(as_json(capsys, "list")) == len(advloss.list_components())


def test_list_shows_the_reason_in_place_of_a_summary(tmp_path: Path) -> None:
    install(tmp_path, "advloss-gone", "import no_such_module_anywhere")
    listed = run(tmp_path, "from advloss._cli import main; main(['list', 'gone'])").splitlines()
    assert listed[1].split(maxsplit=3) == [
        *("plugin", "gone", "gone"),
        "! ModuleNotFoundError: No module named 'no_such_module_anywhere'",
    ]
    shown = run(tmp_path, "from advloss._cli import main; main(['show', 'gone'])")
    assert "status: ModuleNotFoundError" in shown


@pytest.mark.parametrize("kind", ["discriminator", "loss", "regularizer", "augmentation", "recipe"])
def test_show_knows_every_component(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    for name in built_in(kind):
        (shown,) = as_json(capsys, "show", name, "--kind", kind)
        assert shown["status"] == "ok"
        assert shown["name"] == name
        assert "target" in shown["declares"]


def test_show_gives_options_and_declarations(capsys: pytest.CaptureFixture[str]) -> None:
    (shown,) = as_json(capsys, "show", "discriminators/multiscale")
    assert shown["options"]["scales"] == "3"
    assert shown["options"]["**options"] == "further ones"
    (shown,) = as_json(capsys, "show", "r1")
    assert shown["options"]["weight"] == "10.0"
    assert shown["declares"]["second_order"] is True
    assert "arXiv:1801.04406" in shown["declares"]["paper"]
    text = said(capsys, "show", "regularizers/r1")
    assert text.startswith("regularizer regularizers/r1 (advloss ")
    assert "options:" in text
    kinds = [component["kind"] for component in as_json(capsys, "show", "wgan-gp")]
    assert kinds == ["loss", "recipe"]


def test_short_name_that_two_plugins_have(tmp_path: Path) -> None:
    """Each can be used, by its full name: the rows of both say so, and no other's."""
    source = """
        from advloss import LossSpec, RegularizerSpec, hookimpl

        @hookimpl
        def advloss_losses():
            return [LossSpec(name="hinge", target="torch.nn:Identity", summary="A rival."),
                    LossSpec(name="r1", target="torch.nn:Identity", summary="Another kind.")]
    """
    install(tmp_path, "advloss-rival", source)
    listed = run(tmp_path, "from advloss._cli import main; main(['list'])").splitlines()
    note = "! short name shared: write losses/hinge or rival/hinge"
    assert [line.split()[:3] for line in listed if note in line] == [
        ["loss", "hinge", "losses"],
        ["loss", "hinge", "rival"],
    ]
    assert sum("!" in line for line in listed) == 2
    narrow = run(tmp_path, "from advloss._cli import main; main(['list', 'rival/hinge'])")
    assert narrow.rstrip().endswith("A rival.  " + note)
    told = run(tmp_path, "from advloss._cli import main; print(main(['doctor']))").splitlines()
    assert told[-2:] == ["! loss hinge: short name shared: write losses/hinge or rival/hinge", "0"]
    report = json.loads(run(tmp_path, "from advloss._cli import main; main(['doctor', '--json'])"))
    assert report["shared_names"] == {"loss hinge": ["losses/hinge", "rival/hinge"]}


def test_cite_prints_each_paper_once(capsys: pytest.CaptureFixture[str]) -> None:
    bibtex = said(capsys, "cite", "r1", "r2", "hinge", "r3gan")
    assert bibtex.count("@misc{") == len({line for line in bibtex.splitlines() if line.startswith("@misc")})
    assert bibtex.count("1801.04406") == 1
    assert "author = {Lim, Jae Hyun and Ye, Jong Chul}" in bibtex
    assert bibtex.count("{") == bibtex.count("}")


def test_cite_names_every_paper_and_every_component_without_one(capsys: pytest.CaptureFixture[str]) -> None:
    papers = {
        "first": advloss.Paper(
            "On Amortised Inference", "Sønderby, Casper and others", 2016, url="https://example.org"
        ),
        "other": advloss.Paper("The amortised rest", "Sønderby, Casper", 2016, arxiv="1610.04490"),
        "again": advloss.Paper("Amortised: three", "Sönderby, Casper", 2016),
        "none": None,
    }
    for name, paper in papers.items():
        advloss.register_loss(name, paper=paper, summary="A loss.")(advloss.Loss)
    assert main(["cite", *papers, "other"]) == 0
    captured = capsys.readouterr()
    keys = re.findall(r"^@misc\{(.*),$", captured.out, re.MULTILINE)
    assert keys == ["sonderby2016amortised", "sonderby2016amortisedb", "sonderby2016amortisedc"]
    assert captured.err == "advloss: no paper stands behind none\n"
    assert main(["cite", "none"]) == 1
    assert capsys.readouterr().err == "advloss: no paper stands behind none\n"


@pytest.mark.parametrize("name", [n for kind in ("loss", "discriminator", "regularizer") for n in built_in(kind)])
def test_every_component_of_a_paper_can_be_cited(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "title = {" in said(capsys, "cite", name)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "hing"], "no component is called 'hing'. Did you mean 'hinge'"),
        (["show", "hinge", "--kind", "recipe"], "no recipe is called 'hinge'."),
        (["cite", "hing"], "no component is called 'hing'. Did you mean 'hinge'"),
        (["list", "zzz*"], "no component matches 'zzz*'"),
        (["list", "zzz*", "--kind", "loss"], "no loss matches 'zzz*'"),
    ],
)
def test_errors_are_one_line_and_exit_code_1(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"advloss: {message}")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize("arguments", [[], ["no-such-command"], ["list", "--kind", "zzz"], ["show"]])
def test_wrong_usage_is_exit_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    assert "usage: advloss" in capsys.readouterr().err


def module(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "advloss", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)


def test_python_dash_m() -> None:
    version = module("--version")
    assert (version.returncode, version.stdout) == (0, f"advloss {advloss.__version__}\n")
    failed = module("show", "hing")
    assert (failed.returncode, failed.stdout) == (1, "")
    assert "Traceback" not in failed.stderr


def test_reader_that_stops_early_is_no_error() -> None:
    """`advloss list | head -1`"""
    command = f"{sys.executable} -m advloss list | head -1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, timeout=180)
    assert done.stdout.startswith("KIND")
    assert done.stderr == ""


def test_check_prints_a_table_and_fails_when_a_check_does(capsys: pytest.CaptureFixture[str]) -> None:
    table = said(capsys, "check", "hinge", "--kind", "loss").splitlines()
    assert table[0].split()[:4] == ["ok", "loss", "losses/hinge", "building"]
    assert table[-1] == "12 ok, 0 failed, 1 not applicable"
    results = as_json(capsys, "check", "lecam")
    assert {(r["kind"], r["name"], r["status"]) for r in results} == {("regularizer", "regularizers/lecam", "ok")} | {
        ("regularizer", "regularizers/lecam", r["status"]) for r in results if r["status"] == "not applicable"
    }

    @advloss.register_loss("wrong", equilibrium=2.0)
    class Wrong(advloss.Loss):
        """Declared wrongly."""

        def discriminator_term(self, real: Any, fake: Any) -> Any:
            return (-real).exp().mean() + fake.exp().mean()

        def generator_term(self, fake: Any, real: Any) -> Any:
            return -fake.mean()

    assert main(["check", "wrong"]) == 1
    failed = [line.split()[3] for line in capsys.readouterr().out.splitlines() if line.startswith("failed")]
    assert failed == ["equilibrium", "extreme-logits"]
    assert main(["check", "no-such-plugin"]) == 1
    assert "no plugin or component is called" in capsys.readouterr().err


def test_check_of_a_plugin_that_does_not_load(tmp_path: Path) -> None:
    install(tmp_path, "advloss-gone", "import no_such_module_anywhere")
    checked = run(tmp_path, "from advloss._cli import main; print(main(['check', 'gone']))").splitlines()
    assert checked[0].split()[:4] == ["failed", "plugin", "gone", "status"]
    assert "ModuleNotFoundError" in checked[0]
    assert checked[-1] == "1"


def test_check_of_a_plugin_whose_hooks_import_torch(tmp_path: Path) -> None:
    source = "import torch\nfrom advloss import hookimpl\n@hookimpl\ndef advloss_losses():\n    return []"
    install(tmp_path, "advloss-heavy", source)
    code = """
        from advloss.testing import PluginTests
        try:
            type("Tests", (PluginTests,), {"name": "heavy"})().test_hooks_are_light()
        except AssertionError as error:
            print(error)
    """
    assert run(tmp_path, code).startswith("its hook module imports torch")


def test_new_writes_a_plugin(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "plugin"
    out = said(capsys, "new", "gabor", "--folder", str(folder))
    assert (folder / "advloss_gabor" / "_plugin.py").is_file()
    assert out.splitlines()[-1].endswith("advloss check gabor")
    assert main(["new", "gabor", "--folder", str(folder)]) == 1
    assert "is there already" in capsys.readouterr().err
    (tmp_path / "file").touch()
    assert main(["new", "gabor", "--folder", str(tmp_path / "file" / "below")]) == 1
    assert re.fullmatch(r"advloss: .*below cannot be written \(.+\); name another --folder\n", capsys.readouterr().err)


def test_doctor(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = as_json(capsys, "doctor")
    assert report["versions"]["advloss"] == advloss.__version__
    assert report["problems"] == {}
    assert "components" in said(capsys, "doctor")
    install(tmp_path, "advloss-gone", "import no_such_module_anywhere")
    told = run(tmp_path, "from advloss._cli import main; print(main(['doctor']))").splitlines()
    assert told[-2].startswith("! plugin gone/gone (advloss-gone 1.2.3): ModuleNotFoundError")
    assert told[-1] == "1"
