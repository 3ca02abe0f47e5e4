"""Components as typed on a command line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import advloss
from advloss import parse_component

SOURCE = """
from torch import nn

class Mine(nn.Linear):
    def __init__(self, *, width=2):
        super().__init__(2, width)

    def forward(self, samples, condition=None):
        return super().forward(samples).sum(1)

class Fails(Mine):
    def __init__(self):
        raise KeyError("gone")

class Exits(Mine):
    def __init__(self):
        raise SystemExit(3)

nothing = 3
"""
DATA = """
from __future__ import annotations
from dataclasses import dataclass
from typing import ClassVar

@dataclass
class Data:
    kind: ClassVar[str] = "data"
    width: int = {}
"""


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("hinge", "hinge", {}),
        ("losses/hinge", "losses/hinge", {}),
        ("r1:weight=0.1,every=4", "r1", {"weight": 0.1, "every": 4}),
        ("dino:pretrained=false,backbone=test_vit", "dino", {"pretrained": False, "backbone": "test_vit"}),
        ("dino:blocks=[0,1],resolution=32", "dino", {"blocks": [0, 1], "resolution": 32}),
        ('patch:norm="none"', "patch", {"norm": "none"}),
        ("a:b=True,c=False,d=None", "a", {"b": True, "c": False, "d": None}),
        ('a:b="True",c=[None,"None, too"],d=None-such', "a", {"b": "True", "c": [None, "None, too"], "d": "None-such"}),
        (r'a:b="say \"True\""', "a", {"b": 'say "True"'}),
    ],
)
def test_names_with_options(text: str, name: str, options: dict[str, Any]) -> None:
    assert parse_component(text) == (name, options)


def test_a_class_in_a_file_or_a_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_file.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    target, options = parse_component("./my_file.py:Mine:width=3")
    adversary = advloss.Adversary((target, options), "hinge", seed=0)
    assert adversary.discriminator.out_features == 3
    assert adversary.discriminator_step(torch.randn(4, 2), torch.randn(4, 2)).skipped is False
    assert parse_component("torch.nn:Linear") == (nn.Linear, {})
    target, _ = parse_component("my_file.py:Mine")
    assert target().out_features == 2


def test_a_file_is_a_module_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dataclasses look their module up by name; two files of one name are two, and neither can be imported."""
    monkeypatch.chdir(tmp_path)
    made = []
    for folder, width in (("one", 1), ("two", 2)):
        Path(folder).mkdir()
        Path(folder, "json.py").write_text(DATA.format(width))
        made.append(parse_component(f"./{folder}/json.py:Data")[0])
    assert [cls().width for cls in made] == [1, 2]  # type: ignore[operator]
    assert [sys.modules[cls.__module__].Data for cls in made] == made  # type: ignore[union-attr]
    assert sys.modules["json"] is json


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            "my_file.py:Mine:widht=8",
            advloss.OptionError,
            "discriminator Mine has no option 'widht'; did you mean 'width'",
        ),
        ("my_file.py:Mine:width=[]", advloss.PluginError, r"Mine could not be built with width=\[\]: TypeError: "),
        ("my_file.py:Fails", advloss.PluginError, "Fails could not be built with its defaults: KeyError: 'gone'"),
        ("my_file.py:Exits", advloss.PluginError, "Exits could not be built with its defaults: SystemExit: 3"),
        ("torch.nn:Linear:in_features=2", advloss.OptionError, "discriminator Linear needs the option out_features"),
    ],
)
def test_a_class_of_ones_own_that_cannot_be_built(
    text: str, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_file.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        advloss.Adversary(parse_component(text))


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("exits.py:Mine", advloss.PluginError, "exits.py:Mine cannot be imported: SystemExit: 3"),
        ("r1:weight", advloss.OptionError, "write options as r1:option=value"),
        ("r1:weight=1,every", advloss.OptionError, "write options as name:option=value"),
        ("./none.py:Mine", advloss.PluginError, "FileNotFoundError"),
        ("my_file.py:None_such", advloss.PluginError, "AttributeError"),
        ("my_file.py:nothing", advloss.PluginError, "no class or function"),
        ("no.such:Class", advloss.PluginError, "ModuleNotFoundError"),
    ],
)
def test_what_cannot_be_read(
    text: str, error: type[Exception], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_file.py").write_text(SOURCE)
    (tmp_path / "exits.py").write_text("raise SystemExit(3)")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        parse_component(text)


def test_only_what_a_person_typed_runs_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name from configuration is looked up in the catalogue and never imported."""
    (tmp_path / "my_file.py").write_text("raise SystemExit('imported')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("./my_file.py:Mine", "my_file:Mine", "torch.nn:Linear"):
        with pytest.raises(advloss.UnknownComponentError):
            advloss.Adversary(name)
        with pytest.raises(advloss.UnknownComponentError):
            advloss.Adversary("mlp", (name, {}))
