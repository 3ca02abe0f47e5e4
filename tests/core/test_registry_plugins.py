"""Installed plugins: what one does wrong is a row with a line, and no other plugin's business."""

from __future__ import annotations

import json
import re
import textwrap
from pathlib import Path
from typing import Any

import pytest
from plugin_folder import install, rows, run

GOOD = """
    from advloss import LossSpec, hookimpl

    @hookimpl
    def advloss_losses():
        return [LossSpec(name="quartic", target="advloss_good:Quartic", summary="Fourth powers.")]

    class Quartic:
        def discriminator(self, real_logits, fake_logits):
            return ((real_logits - 1) ** 4).mean() + (fake_logits**4).mean()

        def generator(self, fake_logits, real_logits=None):
            return ((fake_logits - 1) ** 4).mean()
"""
HOOK = """
    from advloss import DiscriminatorSpec, LossSpec, hookimpl

    @hookimpl
    def advloss_losses():
        {}
"""


def spec(name: str, more: str = "") -> str:
    return HOOK.format(f'return [LossSpec(name="{name}", target="nowhere:Class", summary="A loss."{more})]')


# A plugin that cannot be loaded: its source, and what its row says.
BROKEN: dict[str, tuple[str, str]] = {
    "import-error": (
        "import no_such_module_anywhere",
        "ModuleNotFoundError: No module named 'no_such_module_anywhere'",
    ),
    "syntax-error": ("def broken(:\n    pass", "SyntaxError: .*"),
    "exception": ("raise RuntimeError('two\\nlines ' + 500 * 'x')", "RuntimeError: two lines x{1,200}"),
    "exits": ("raise SystemExit(3)", "SystemExit: 3"),
    "unknown-hook": (
        "from advloss import hookimpl\n@hookimpl\ndef advloss_loses():\n    return []",
        "PluginValidationError: unknown hook 'advloss_loses'.*; perhaps written for a newer advloss: upgrade advloss",
    ),
    "wrong-arguments": (
        "from advloss import hookimpl\n@hookimpl\ndef advloss_losses(registry):\n    return []",
        "PluginValidationError: .*registry.*",
    ),
    "hook-raises": (HOOK.format("raise KeyError('gone')"), "KeyError: 'gone'"),
    "returns-number": (HOOK.format("return 3"), "TypeError: .*"),
    "returns-names": (
        HOOK.format("return ['hinge']"),
        "TypeError: advloss_losses returned a str; return LossSpec objects",
    ),
    "returns-one": (
        HOOK.format("return LossSpec(name='a', target='b:C', summary='d')"),
        "TypeError: advloss_losses returned one LossSpec; return a list of them",
    ),
    "wrong-kind": (
        HOOK.format("return [DiscriminatorSpec(name='a', target='b:C', summary='d')]"),
        "TypeError: advloss_losses returned a DiscriminatorSpec; return LossSpec objects",
    ),
    "returns-none": (HOOK.format("pass"), "TypeError: advloss_losses returned None; return a list of LossSpec objects"),
    "unmarked": (
        HOOK.replace("@hookimpl", "").format("return []"),
        "TypeError: advloss_losses lacks @advloss.hookimpl",
    ),
    "half-marked": (
        GOOD + "\n    def advloss_recipes():\n        return []\n",
        "TypeError: advloss_recipes lacks @advloss.hookimpl",
    ),
    "no-hook": ("import math", "TypeError: it has no hook; define advloss_discriminators, .*"),
    "bad-name": (
        spec("Bad_Name"),
        "OptionError: LossSpec 'Bad_Name': name='Bad_Name'; give lower case, digits and single hyphens",
    ),
    "bad-target": (
        spec("a").replace("nowhere:Class", "nowhere"),
        "OptionError: LossSpec 'a': target='nowhere'; give 'package.module:Attribute'",
    ),
    "bad-year": (
        spec("a", ", paper=Paper('Title', 'Author', '2014')").replace("LossSpec, ", "LossSpec, Paper, "),
        "OptionError: Paper 'Title': year='2014'; give a year, as in 2014",
    ),
    "new-field": (
        spec("a", ", api=2, colour=3"),
        "TypeError: LossSpec.* argument 'colour'; perhaps written for a newer advloss: upgrade advloss",
    ),
    "new-name": (
        "\n    from advloss import NewThing" + spec("a"),
        "ImportError: cannot import name 'NewThing' from 'advloss'.*; perhaps written for a newer advloss: upgrade advloss",
    ),
    "new-attribute": (
        "import advloss\nadvloss.NewThing",
        "AttributeError: module 'advloss' .* 'NewThing'; perhaps written for a newer advloss: upgrade advloss",
    ),
    "new-module": (
        "import advloss.new_module",
        "ModuleNotFoundError: .*'advloss.new_module'; perhaps written for a newer advloss: upgrade advloss",
    ),
    "own-module": (
        "import advloss_own_module_.below",
        "ModuleNotFoundError: No module named 'advloss_own_module_'",
    ),
    "empty": (HOOK.format("return []"), "offers nothing: its hooks return no specs"),
}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All of them installed at once, beside one that is good."""
    folder = tmp_path_factory.mktemp("site")
    for name, (source, _) in BROKEN.items():
        install(folder, f"advloss-{name}", source)
    install(folder, "advloss-good", GOOD)
    install(folder, "advloss-future", spec("tomorrow", ", api=99"))
    install(folder, "advloss-past", spec("yesterday", ", api=0"))
    install(folder, "advloss-needy", spec("extra", ", requires=('no_such_package',), extra='all'"))
    install(folder, "advloss-needier", spec("plain", ", requires=('json', 'no_such.sub', 'no_such.b', 'nor_this')"))
    install(folder, "advloss-twice", HOOK.format("return [LossSpec(name='a', target='b:C', summary='d')] * 2"))
    install(folder, "advloss-one", GOOD, name="claimed", version="1.0")
    install(folder, "advloss-two", GOOD, name="claimed", version="2.0")
    install(folder, "advloss-malformed", GOOD)
    (folder / "advloss_malformed-1.2.3.dist-info" / "entry_points.txt").write_text(
        "[advloss]\nmalformed = advloss-good\n"
    )
    return {"folder": folder, "rows": rows(folder), "bare": rows(folder, ADVLOSS_DISABLE_PLUGINS="1")}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_plugin_is_one_row_with_one_line(catalogue: dict[str, Any], name: str) -> None:
    (row,) = [row for row in catalogue["rows"] if row["plugin"] == name]
    assert (row["kind"], row["name"], row["distribution"]) == ("plugin", name, f"advloss-{name} 1.2.3")
    assert re.fullmatch(BROKEN[name][1], row["status"])
    assert "\n" not in row["status"]


def test_value_of_an_entry_point_that_names_no_module(catalogue: dict[str, Any]) -> None:
    (row,) = [row for row in catalogue["rows"] if row["plugin"] == "malformed"]
    assert (row["kind"], row["distribution"]) == ("plugin", "advloss-malformed 1.2.3")
    assert row["status"] == "its entry point's value 'advloss-good' is not module[:attribute]"


@pytest.mark.parametrize("value", ["advloss_good", "advloss_good:Plugin", "advloss_good : Plugin.hooks [extra]"])
def test_values_of_entry_points_that_do(tmp_path: Path, value: str) -> None:
    source = (
        GOOD + "\n    class Plugin:\n        hooks = None\n    Plugin.advloss_losses = staticmethod(advloss_losses)\n"
    )
    install(tmp_path, "advloss-good", source + "    Plugin.hooks = Plugin\n")
    (tmp_path / "advloss_good-1.2.3.dist-info" / "entry_points.txt").write_text(f"[advloss]\ngood = {value}\n")
    assert [row["status"] for row in rows(tmp_path) if row["plugin"] == "good"] == ["ok"]


def test_what_a_plugin_prints_is_no_part_of_a_report(tmp_path: Path) -> None:
    source = "print('on import')\n" + textwrap.dedent(GOOD).replace("return [", "print('in a hook')\n    return [")
    install(tmp_path, "advloss-good", source.replace("advloss_good:Quartic", "noisy_target:Quartic"))
    (tmp_path / "noisy_target.py").write_text("print('when it is imported')\nfrom advloss_good import Quartic")
    for arguments in (["list"], ["show", "quartic"], ["check", "quartic"], ["doctor"]):
        report = run(tmp_path, f"from advloss._cli import main; main([*{arguments}, '--json'])")
        assert json.loads(report), arguments


def test_the_others_are_whole(catalogue: dict[str, Any]) -> None:
    found = {(row["plugin"], row["name"]): row["status"] for row in catalogue["rows"]}
    assert found["good", "quartic"] == "ok"
    built_in = [row for row in catalogue["rows"] if row["distribution"].startswith("advloss ")]
    assert built_in == catalogue["bare"]
    assert len(built_in) > 30
    assert all(row["status"] == "ok" for row in built_in)


@pytest.mark.parametrize(
    ("plugin", "status"),
    [
        ("future", "written for plugin API 99; this advloss speaks 1: upgrade advloss"),
        ("past", "written for plugin API 0; this advloss speaks 1: upgrade advloss-past"),
        ("needy", "needs no_such_package: pip install 'advloss-needy[all]'"),
        ("needier", "needs no_such.sub, no_such.b, nor_this: pip install no_such nor_this"),
    ],
)
def test_component_that_cannot_be_built_here_says_why(catalogue: dict[str, Any], plugin: str, status: str) -> None:
    (row,) = [row for row in catalogue["rows"] if row["plugin"] == plugin]
    assert row["kind"] == "loss"
    assert row["status"] == status


def test_name_declared_twice_by_one_plugin(catalogue: dict[str, Any]) -> None:
    statuses = [row["status"] for row in catalogue["rows"] if row["plugin"] == "twice"]
    assert statuses == ["declared 2 times in this plugin"] * 2


def test_entry_point_claimed_by_two_distributions(catalogue: dict[str, Any]) -> None:
    """Neither wins: which one came first on the path would decide."""
    both = [row for row in catalogue["rows"] if row["plugin"] == "claimed"]
    assert sorted(row["distribution"] for row in both) == ["advloss-one 1.0", "advloss-two 2.0"]
    for row in both:
        assert row["kind"] == "plugin"
        assert row["status"] == (
            "entry point 'claimed' is claimed by advloss-one 1.0 and advloss-two 2.0; uninstall one"
        )


def test_plugins_by_environment(catalogue: dict[str, Any]) -> None:
    chosen = rows(catalogue["folder"], ADVLOSS_PLUGINS="good, losses")
    assert {row["plugin"] for row in chosen} == {"good", "losses"}
    assert {row["plugin"] for row in catalogue["bare"]}.isdisjoint({"good", "exits", "claimed"})
    everything = rows(catalogue["folder"], ADVLOSS_DISABLE_PLUGINS="0")
    assert everything == catalogue["rows"]


def test_same_distribution_found_twice_is_one(tmp_path: Path) -> None:
    """A folder twice on the path, or an editable install beside its metadata, is no clash."""
    install(tmp_path, "advloss-good", GOOD)
    found = rows(tmp_path, PYTHONPATH=f"{tmp_path}:{tmp_path}/.:{tmp_path}")
    assert [row["status"] for row in found if row["plugin"] == "good"] == ["ok"]


BUILDING = """
    import advloss, torch
    from advloss import create_loss

    def fails(error, *args):
        try:
            create_loss(*args)
        except error as e:
            print(" ".join(str(e).split()))
        else:
            raise SystemExit("no error")

    print(float(create_loss("good/quartic").generator(torch.zeros(3))))
    print(type(create_loss("losses/hinge")).__name__)
    fails(advloss.UnknownComponentError, "hinge")
    fails(advloss.PluginError, "tomorrow")
    fails(advloss.PluginError, "extra")
    fails(advloss.PluginError, "gone")
    fails(advloss.PluginError, "half")
    fails(advloss.PluginError, "nobody/odd")
    fails(advloss.PluginError, "twice/a")
    fails(advloss.UnknownComponentError, "claimed/quartic")
    fails(advloss.UnknownComponentError, "huber")
    fails(advloss.UnknownComponentError, "nobody/hinge")
"""


def test_building_says_what_stands_in_the_way(tmp_path: Path) -> None:
    install(tmp_path, "advloss-good", GOOD)
    install(tmp_path, "advloss-rival", spec("hinge"), version="0.9")
    install(tmp_path, "advloss-future", spec("tomorrow", ", api=99"))
    install(tmp_path, "advloss-needy", spec("extra", ", requires=('no_such_package',), extra='all'"))
    install(tmp_path, "advloss-gone", spec("gone"))
    half = spec("half", ", requires=('half_there',), extra='all'").replace("nowhere:Class", "half_there:Class")
    install(tmp_path, "advloss-half", half)
    (tmp_path / "half_there.py").write_text("import missing_below")
    odd = spec("odd").replace("nowhere:Class", "json:dumps.__doc__")
    install(tmp_path, "advloss-nobody", odd)
    install(tmp_path, "advloss-broken", "1 / 0")
    install(tmp_path, "advloss-twice", HOOK.format("return [LossSpec(name='a', target='b:C', summary='d')] * 2"))
    install(tmp_path, "advloss-one", GOOD, name="claimed", version="1.0")
    install(tmp_path, "advloss-two", GOOD, name="claimed", version="2.0")
    lines = run(tmp_path, BUILDING).splitlines()
    expected = [
        r"1\.0",
        r"Hinge",
        r"loss 'hinge' is provided by losses/hinge \(advloss [\d.]+\) and rival/hinge \(advloss-rival 0\.9\); "
        r"write the full name of the one you mean",
        r"loss future/tomorrow \(advloss-future 1\.2\.3\) cannot be used: written for plugin API 99.*",
        r"loss needy/extra \(advloss-needy 1\.2\.3\) cannot be used: needs no_such_package: "
        r"pip install 'advloss-needy\[all\]'",
        r"loss gone/gone \(advloss-gone 1\.2\.3\) cannot be imported from nowhere:Class: ModuleNotFoundError.*",
        r"loss half/half .*No module named 'missing_below'\. Try: pip install 'advloss-half\[all\]'",
        r"json:dumps\.__doc__ of nobody/odd \(advloss-nobody 1\.2\.3\) is no class or function",
        r"loss twice/a \(advloss-twice 1\.2\.3\) cannot be used: declared 2 times in this plugin",
        r"no loss is called 'claimed/quartic'\..*claimed \(entry point 'claimed' is claimed by advloss-one 1\.0 and .*",
        r"no loss is called 'huber'\. .*Plugins that could not be loaded: .*broken \(ZeroDivisionError: .*",
        r"no loss is called 'nobody/hinge'\. .*",
    ]
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected):
        assert re.fullmatch(pattern, line), (pattern, line)
