"""The conformance kit against components that are right, and against one that is wrong for each of its checks."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import broken_discriminators
import broken_terms
import pytest
import torch

from advloss import _registry
from advloss._registry import _register
from advloss.testing import ComponentTests, _run, check

GOOD = {
    "discriminator": (broken_discriminators.Good, broken_discriminators.GOOD),
    "loss": (broken_terms.GoodLoss, broken_terms.LOSS),
    "regularizer": (broken_terms.GoodRegularizer, broken_terms.REGULARIZER),
    "augmentation": (broken_terms.GoodAugmentation, broken_terms.AUGMENTATION),
    "recipe": (broken_terms.good_recipe, {}),
}
BROKEN = [
    pytest.param(kind, name, target, declared, id=f"{kind}-{name}-{target.__name__}{declared or ''}")
    for kind, cases in {
        "discriminator": broken_discriminators.BROKEN,
        "loss": broken_terms.LOSSES,
        "regularizer": broken_terms.REGULARIZERS,
        "augmentation": broken_terms.AUGMENTATIONS,
        "recipe": broken_terms.RECIPES,
    }.items()
    for name, target, declared in cases
]


@pytest.fixture(autouse=True)
def same_world() -> Iterator[None]:
    """What a broken component does to global state is undone."""
    state, threads = random.getstate(), torch.get_num_threads()
    yield
    random.setstate(state)
    torch.set_num_threads(threads)


def run(kind: Any, target: Any, declared: dict[str, Any], only: str | None = None) -> dict[str, str]:
    """What fails, by check."""
    _register(kind, "subject", {"summary": "Under test.", **GOOD[kind][1], **declared})(target)
    tests = type("Tests", (_run.TESTS[kind],), {"name": "script/subject"})
    methods = _run.checks_of(tests)
    if only is not None:
        methods = {f"test_{only.replace('-', '_')}": ""}
    outcomes = {method: _run._run(tests, method) for method in methods}
    return {method: detail for method, (status, detail) in outcomes.items() if status == "failed"}


@pytest.mark.parametrize("kind", GOOD)
def test_good_component_passes(kind: Any) -> None:
    assert run(kind, *GOOD[kind]) == {}


@pytest.mark.parametrize(("kind", "name", "target", "declared"), BROKEN)
def test_broken_component_is_caught(kind: Any, name: str, target: Any, declared: dict[str, Any]) -> None:
    failed = run(kind, target, declared, only=name)
    assert list(failed) == [f"test_{name.replace('-', '_')}"]
    (message,) = failed.values()
    assert len(message) > 20


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
    _register("loss", "future", {"summary": "Later.", "api": 99})(broken_terms.GoodLoss)
    row = _registry._script["loss", "future"]
    _registry._script["loss", "future"] = replace(row, status="written for plugin API 99")
    (result,) = check("script/future")
    assert (result.check, result.status, result.detail) == ("status", "failed", "written for plugin API 99")


def test_options_may_be_given_in_the_class() -> None:
    class Small(_run.DiscriminatorTests):
        name = "mlp"
        examples = ({"width": 3, "num_classes": 2},)

    assert dict(Small().cases[0].takes) == {"class": 2}
