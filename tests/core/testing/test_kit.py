"""The conformance kit against components that are right, and against one that is wrong for each of its checks."""

from __future__ import annotations

import random
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import broken_augmentations
import broken_discriminators
import broken_losses
import broken_recipes
import broken_regularizers
import broken_states
import numpy as np
import pytest
import torch
import unusual
from torch import nn

from advloss import Recipe, _registry
from advloss._registry import _register
from advloss.testing import ComponentTests, _run, check

GOOD = {
    "discriminator": (broken_discriminators.Good, broken_discriminators.GOOD),
    "loss": (broken_losses.GoodLoss, broken_losses.GOOD),
    "regularizer": (broken_regularizers.GoodRegularizer, broken_regularizers.GOOD),
    "augmentation": (broken_augmentations.GoodAugmentation, broken_augmentations.GOOD),
    "recipe": (broken_recipes.good_recipe, {}),
}
BROKEN = [
    pytest.param(kind, name, target, declared, id=f"{kind}-{name}-{target.__name__}{declared or ''}")
    for kind, cases in {
        "discriminator": broken_discriminators.BROKEN + broken_states.BROKEN,
        "loss": broken_losses.BROKEN,
        "regularizer": broken_regularizers.BROKEN,
        "augmentation": broken_augmentations.BROKEN,
        "recipe": broken_recipes.BROKEN,
    }.items()
    for name, target, declared in cases
]


def run(
    kind: Any, target: Any, declared: dict[str, Any], but: Collection[str] = (), only: str | None = None
) -> dict[str, str]:
    """What fails, by check."""
    _register(kind, "subject", {"summary": "Under test.", **GOOD[kind][1], **declared})(target)
    tests = type("Tests", (_run.TESTS[kind],), {"name": "script/subject"})
    methods = [method for method in _run.checks_of(tests) if method not in but]
    if only is not None:
        methods = [f"test_{only.replace('-', '_')}"]
    outcomes = {method: _run._run(tests, method) for method in methods}
    return {method: detail for method, (status, detail) in outcomes.items() if status == "failed"}


@pytest.mark.parametrize("kind", GOOD)
def test_good_component_passes(kind: Any) -> None:
    assert run(kind, *GOOD[kind]) == {}


@pytest.mark.parametrize(
    ("kind", "target", "declared"), unusual.UNUSUAL, ids=lambda value: getattr(value, "__name__", "")
)
def test_unusual_component_passes(kind: Any, target: Any, declared: dict[str, Any]) -> None:
    slow = {"test_compile"}  # asks nothing that the good one does not
    assert run(kind, target, {**GOOD[kind][1], **declared}, slow) == {}


@pytest.mark.parametrize(("kind", "name", "target", "declared"), BROKEN)
def test_broken_component_is_caught(kind: Any, name: str, target: Any, declared: dict[str, Any]) -> None:
    failed = run(kind, target, declared, only=name)
    assert list(failed) == [f"test_{name.replace('-', '_')}"]
    (message,) = failed.values()
    assert len(message) > 20
    assert not message.startswith(("NameError", "AttributeError")), "the example itself is broken"


def test_every_check_is_seen_to_fail() -> None:
    seen = {(kind, name) for kind, name, *_ in (case.values for case in BROKEN)}
    checks = {
        (kind, method.removeprefix("test_").replace("_", "-"))
        for kind, tests in _run.TESTS.items()
        for method in _run.checks_of(tests)
    }
    assert checks == seen


def test_every_check_says_what_it_checks() -> None:
    for tests in (*_run.TESTS.values(), _run.PluginTests):
        for method, says in _run.checks_of(tests).items():
            assert says.endswith("."), method
            assert "\n" not in says, method


@pytest.mark.parametrize("through", ["advloss check", "pytest"])
def test_what_a_failing_check_sets_does_not_leak(through: str) -> None:
    _register("discriminator", "subject", {"summary": "Under test.", **broken_discriminators.GOOD})(broken_states.Leaks)
    tests = type("TestLeaks", (_run.DiscriminatorTests,), {"name": "script/subject"})
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    if through == "pytest":
        case = tests()
        case.setup_method()
        with pytest.raises(AssertionError, match="not finite"):
            case.test_dimensions()
        case.teardown_method()
    else:
        assert _run._run(tests, "test_dimensions")[0] == "failed"
    assert torch.get_default_dtype() == torch.float32
    assert not torch.are_deterministic_algorithms_enabled()
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states


def test_a_test_class_may_have_a_setup_of_its_own() -> None:
    class TestHinge(_run.LossTests):
        name = "hinge"

        def setup_method(self) -> None:
            self.mine = 1

    case = TestHinge()
    case.setup_method()
    case.test_building()
    case.teardown_method()


def test_plain_pytest_skips_what_does_not_apply() -> None:
    import unittest

    class TestHinge(_run.LossTests):
        name = "hinge"

    with pytest.raises(unittest.SkipTest, match="it brings none"):
        TestHinge().test_regularizers()
    assert issubclass(TestHinge, ComponentTests)


def test_check_runs_all_that_a_name_stands_for() -> None:
    results = list(check("wgan-gp", "loss"))
    assert {(r.kind, r.name) for r in results} == {("loss", "losses/wgan-gp")}
    assert {r.status for r in results} == {"ok"}
    assert len(results) == len(_run.checks_of(_run.LossTests))


def test_component_that_cannot_be_used_fails_its_status() -> None:
    _register("loss", "future", {"summary": "Later.", "api": 99})(broken_losses.GoodLoss)
    row = _registry._script["loss", "future"]
    _registry._script["loss", "future"] = replace(row, status="written for plugin API 99")
    (result,) = check("script/future")
    assert (result.check, result.status, result.detail) == ("status", "failed", "written for plugin API 99")


def test_missing_package_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    _register("discriminator", "far", {"summary": "Elsewhere.", "requires": ("no_such_package",)})(nn.Identity)
    row = _registry._script["discriminator", "far"]
    lacking = replace(row, status="needs no_such_package: pip install no_such_package")
    monkeypatch.setitem(_registry._script, ("discriminator", "far"), lacking)
    (result,) = check("script/far")
    assert (result.status, result.detail) == ("not applicable", lacking.status)

    def around_it(*, num_classes: int | None = None) -> Recipe:
        return Recipe(discriminator="script/far")

    _register("recipe", "subject", {"summary": "Under test."})(around_it)
    results = {result.check: result.status for result in check("script/subject", "recipe")}
    assert results == {
        "building": "ok",
        "components": "not applicable",
        "optimizers": "ok",
        "training": "not applicable",
    }
    plugin = type("TestScript", (_run.PluginTests,), {"name": "script"})()
    monkeypatch.setattr(_registry, "_script", {("discriminator", "far"): lacking})
    plugin.test_status()
    broken = replace(lacking, status="cannot be loaded", spec=replace(lacking.spec, requires=()))
    monkeypatch.setattr(_registry, "_script", {("discriminator", "far"): broken})
    with pytest.raises(AssertionError, match="cannot be loaded"):
        plugin.test_status()


def test_options_may_be_given_in_the_class() -> None:
    class Small(_run.DiscriminatorTests):
        name = "mlp"
        examples = ({"width": 3, "num_classes": 2},)

    assert dict(Small().cases[0].takes) == {"class": 2}
