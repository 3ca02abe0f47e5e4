"""Run the kit without pytest: what `advloss check` prints."""

from __future__ import annotations

import inspect
import unittest
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast

from advloss._registry import OK, list_components, unknown
from advloss.specs import Kind
from advloss.testing._augmentation import AugmentationTests
from advloss.testing._component import ComponentTests, lacks_package
from advloss.testing._discriminator import DiscriminatorTests
from advloss.testing._loss import LossTests
from advloss.testing._plugin import PluginTests
from advloss.testing._recipe import RecipeTests
from advloss.testing._regularizer import RegularizerTests
from advloss.testing._world import restored_world

TESTS: dict[Kind, type[ComponentTests]] = {
    "discriminator": DiscriminatorTests,
    "loss": LossTests,
    "regularizer": RegularizerTests,
    "augmentation": AugmentationTests,
    "recipe": RecipeTests,
}

Status: TypeAlias = Literal["ok", "failed", "not applicable"]


@dataclass(frozen=True)
class CheckResult:
    """One check of one component (or of a plugin, `kind` ``"plugin"``).

    Attributes:
        check: the method's name without ``test_``.
        status: ``"ok"``, ``"failed"``, or ``"not applicable"``.
        detail: what was checked, or why it failed or was left out.
    """

    kind: str
    name: str
    check: str
    status: Status
    detail: str


def check(name: str, kind: Kind | None = None) -> Iterator[CheckResult]:
    """Run the conformance kit on what is installed, one result at a time.

    Args:
        name: a plugin, or a component by its short or full name.
        kind: only components of this kind.

    Raises:
        UnknownComponentError: there is no such plugin or component.
    """
    rows = [row for row in list_components(kind) if name in (row.plugin, row.name, row.full_name)]
    if not rows:
        raise unknown(kind or "plugin or component", name, list_components(kind))
    for plugin in sorted({row.plugin for row in rows if name == row.plugin or row.kind == "plugin"} - {"script"}):
        yield from _results("plugin", plugin, type("Tests", (PluginTests,), {"name": plugin}))
    for row in rows:
        if row.kind == "plugin":
            continue
        if row.status != OK:
            status: Status = "not applicable" if lacks_package(row) else "failed"
            yield CheckResult(row.kind, row.full_name, "status", status, row.status)
        else:
            tests = type("Tests", (TESTS[cast(Kind, row.kind)],), {"name": row.full_name})
            yield from _results(row.kind, row.full_name, tests)


def checks_of(tests: type[Any]) -> dict[str, str]:
    """The checks of a class of tests: method names, with what they say."""
    names = [name for owner in reversed(tests.__mro__) for name in vars(owner) if name.startswith("test_")]
    return {name: inspect.cleandoc(getattr(tests, name).__doc__ or "") for name in dict.fromkeys(names)}


def _results(kind: str, name: str, tests: type[Any]) -> Iterator[CheckResult]:
    for method, says in checks_of(tests).items():
        status, detail = _run(tests, method)
        yield CheckResult(kind, name, method.removeprefix("test_").replace("_", "-"), status, detail or says)


def _run(tests: type[Any], method: str) -> tuple[Status, str]:
    try:
        with restored_world():
            getattr(tests(), method)()
    except unittest.SkipTest as reason:
        return "not applicable", str(reason)
    except AssertionError as error:
        return "failed", _line(error)
    except Exception as error:  # whatever the component under test raises
        return "failed", f"{type(error).__name__}: {_line(error)}"
    return "ok", ""


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]
