"""Every field of a spec is checked when the spec is made: one plugin's slip is a row with its reason, and no more."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from plugin_folder import install, rows, run

import advloss
from advloss import specs
from advloss.specs import SPEC_OF, Paper

GIVEN: dict[str, Any] = {"name": "a-1", "target": "package.module:Class.method", "summary": "A loss."}

# For every field of every kind: values that are right, and values that are not.
VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    "name": (["a", "wgan-gp", "2d"], ["", "A", "a_b", "a--b", "-a", None, 3]),
    "target": (["a:B", "a.b:C.d", "_a1:_b"], ["a", "a:", ":b", "a:b:c", "a..b:c", "a/b:c", None]),
    "summary": (["One line.", "L\u00e9on\u00a0B"], ["", "  ", "two\nlines", "red \x1b[31m", "a\u2028b", None, 3]),
    "paper": ([None, Paper("T", "A", 2014)], ["arXiv:1234", {"title": "T"}]),
    "requires": ([(), ("timm",), ("a.b", "c_1")], ["timm", ("",), ("a-b",), ("a.",), ["timm"], (3,), None]),
    "extra": ([None, "timm"], ["", ("timm",), 3]),
    "examples": ([(), ({},), ({"width": 4}, MappingProxyType({"depth": 1}))], [{}, [{}], ({4: 1},), (3,), None]),
    "api": ([1], ["1", 1.0, None, True, -1]),
    "dims": ([(2,), (0, 1, 2, 3)], [2, (), [2], ("2",), (4,), (-1,), (2.0,), (True,), None]),
    "value_range": ([None, (-1.0, 1.0), (0, 255)], [1.0, (1.0,), (1.0, -1.0), ("a", "b"), [-1.0, 1.0], (0, 0)]),
    "smallest": ([1, 64], [0, 1.5, "8", None, True]),
    "conditions": ([(), ("class",), ("vector", "image", "time")], ["class", ("classes",), ["class"], (3,), None]),
    "output": (["logit", "map", "multi-scale"], ["maps", None, ("map",), ["map"]]),
    "equilibrium": ([None, 0, 0.5], ["0", (0.0,), True]),
    "slope": ([None, 0, 1.0], ["0", (0.0,), True]),
    "regularizers": (
        [{}, {"r1": {"weight": 1}}, MappingProxyType({"r1": {}})],
        ["r1", ("r1",), {"r1": 1}, {1: {}}, None],
    ),
    "title": (["A title"], ["", "two\nlines", None]),
    "authors": (["A, B and others"], ["", None, ["A", "B"]]),
    "year": ([2014], ["2014", None, 0]),
    "arxiv": ([None, "1406.2661"], [1406.2661, ""]),
    "url": ([None, "https://example.org"], ["", 3]),
}
FLAGS = {
    *("fixed_size", "features", "double_backward", "batch_coupled", "compiles", "pretrained", "paired"),
    *("second_order", "constraint"),
}
VALUES.update({name: ([True, False], [1, "yes", None]) for name in FLAGS})
FIELDS = [(kind, f.name) for kind, spec in SPEC_OF.items() for f in fields(spec)]


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_fields_of_specs(kind: Any, name: str) -> None:
    right, wrong = VALUES[name]
    for value in right:
        assert getattr(SPEC_OF[kind](**{**GIVEN, name: value}), name) == value
    for value in wrong:
        with pytest.raises(advloss.OptionError, match=f"{name}=.*; give ."):
            SPEC_OF[kind](**{**GIVEN, name: value})


@pytest.mark.parametrize("name", [f.name for f in fields(Paper)])
def test_fields_of_papers(name: str) -> None:
    right, wrong = VALUES[name]
    paper = {"title": "T", "authors": "A", "year": 2014}
    for value in right:
        assert getattr(Paper(**{**paper, name: value}), name) == value
    for value in wrong:
        with pytest.raises(advloss.OptionError, match=f"{name}=.*; give ."):
            Paper(**{**paper, name: value})


def test_message_says_what_was_given_and_what_to_give() -> None:
    with pytest.raises(advloss.OptionError) as error:
        advloss.DiscriminatorSpec(**GIVEN, conditions="class")
    assert str(error.value) == (
        "DiscriminatorSpec 'a-1': conditions='class'; give a tuple of 'class', 'vector', 'image', 'time', or some of them, "
        "as in ('class',)"
    )


def test_another_version_of_the_api_is_not_judged_by_this_one() -> None:
    """Its row says which of the two to upgrade; a field may mean something else there."""
    later = advloss.DiscriminatorSpec(**GIVEN, dims="any", conditions=("text",), api=99)
    assert later.dims == "any"
    with pytest.raises(advloss.OptionError, match="name="):
        advloss.LossSpec(name="A", target="a:B", summary="", api=99)
    assert specs.API_VERSION == 1


SLIPS = """
    from advloss import AugmentationSpec, DiscriminatorSpec, hookimpl

    @hookimpl
    def advloss_discriminators():
        return [DiscriminatorSpec(name="slip", target="torch.nn:Identity", summary="One.", dims=2)]

    @hookimpl
    def advloss_augmentations():
        return [AugmentationSpec(name="slip", target="torch.nn:Identity", summary="One.", dims=2)]
"""
REFUSED = """
    import advloss, torch
    try:
        advloss.Adversary("mlp", "hinge", augmentations=["diffaugment"])
    except advloss.CombinationError as error:
        print(error)
    try:
        advloss.Adversary(("unet", {"width": 4})).generator_loss(torch.zeros(2, 3, 8, 8), condition=torch.arange(2))
    except advloss.InputError as error:
        print(error)
"""


def test_a_slip_of_one_plugin_is_a_row_and_spoils_no_refusal_of_others(tmp_path: Path) -> None:
    install(tmp_path, "advloss-slips", SLIPS)
    (row,) = [row for row in rows(tmp_path) if row["plugin"] == "slips"]
    assert (row["kind"], row["status"]) == (
        "plugin",
        "OptionError: DiscriminatorSpec 'slip': dims=2; give a tuple of numbers of spatial dimensions, 0 to 3, as in (2,)",
    )
    refused = run(tmp_path, REFUSED).splitlines()
    assert refused[0].endswith("leave it out, or use 'instance-noise'")
    assert "takes none; try " in refused[1]


STRANGE = """
    import types
    from advloss import DiscriminatorSpec, LossSpec, hookimpl

    @hookimpl
    def advloss_discriminators():
        return [DiscriminatorSpec(name="strange", target="torch.nn:Identity", summary="One.",
                                  examples=({"a": {1}, "b": print, "c": {(1, 2): (3, None)}},)),
                DiscriminatorSpec(name="later", target="torch.nn:Identity", summary="One.", paper="1234", api=99)]

    @hookimpl
    def advloss_losses():
        return [LossSpec(name="proxy", target="torch.nn:Identity", summary="One.",
                         regularizers=types.MappingProxyType({"r1": {"weight": 1.0}}))]
"""


def test_show_prints_what_specs_may_hold(tmp_path: Path) -> None:
    install(tmp_path, "advloss-strange", STRANGE)
    code = "from advloss._cli import main; main(['show', {!r}, *{}])"
    declares = json.loads(run(tmp_path, code.format("strange", ["--json"])))[0]["declares"]
    assert declares["examples"] == [{"a": "{1}", "b": "<built-in function print>", "c": {"(1, 2)": [3, None]}}]
    assert declares["dims"] == [2]
    assert json.loads(run(tmp_path, code.format("proxy", ["--json"])))[0]["declares"]["regularizers"] == {
        "r1": {"weight": 1.0}
    }
    assert "  {'r1': {'weight': 1.0}}" in run(tmp_path, code.format("proxy", []))
    (later,) = json.loads(run(tmp_path, code.format("later", ["--json"])))
    assert later["status"].endswith("upgrade advloss")
