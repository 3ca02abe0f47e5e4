"""The monitor warns of what the doctor names, once, and of nothing in healthy runs; it waits for no device."""

from __future__ import annotations

import copy
import dataclasses
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from no_reading import NoReading
from test_doctor import NAMES, RECORDED, data_size, expected

import advloss
from advloss import _health, _late


def reports(path: Path) -> Iterator[advloss.Report]:
    """A recorded run's reports."""
    for line in path.read_text().splitlines():
        entry = {k.removeprefix("discriminator/"): v for k, v in json.loads(line).items()}
        number = {k: torch.tensor(torch.nan if v is None else v) for k, v in entry.items() if not isinstance(v, dict)}
        parts = {
            part: {name.removeprefix(f"{part}/"): v for name, v in number.items() if name.startswith(f"{part}/")}
            for part in ("regularizers", "signals")
        }
        names = ("loss", "real_logits", "fake_logits", "real_accuracy", "fake_accuracy", "grad_norm", "fake_grad_norm")
        given = {name: number.get(name) for name in names}
        yield advloss.Report(step=entry["step"], skipped=bool(entry["skipped"]), **parts, **given)


class Described:
    """An adversary of which there is only a description."""

    def __init__(self, about: dict[str, Any]) -> None:
        self.describe = lambda: about


def watched(path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(_health, "NOTE_EVERY", 1)  # the recordings are thinned already
    about = advloss.read_log(path).about
    adversary: Any = Described(about)
    told: list[advloss.Finding] = []
    monitor = advloss.HealthMonitor(
        adversary, every=10, data_size=data_size(path), generator_lr=about["generator_lr"], warn=told.append
    )
    given = list(reports(path))
    while expected(path) and len(given) < 150:  # short runs go on as in their second half
        last = given[-1].step
        half = given[len(given) // 2 :]
        given += [dataclasses.replace(report, step=last + report.step - half[0].step + 1) for report in half]
    for report in given:
        monitor(report)
    assert monitor.findings == told
    return [finding.cause for finding in told]


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.stem)
def test_recorded_runs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = watched(path, monkeypatch)
    assert len(found) == len(set(found))
    if (cause := expected(path)) is None:
        assert found == []
    else:
        assert cause in found


def collapsing(monitor_every: int) -> tuple[advloss.Adversary, advloss.HealthMonitor]:
    adversary = advloss.Adversary("mlp", "hinge", seed=0)
    return adversary, advloss.HealthMonitor(adversary, every=monitor_every)


def step(adversary: advloss.Adversary) -> advloss.Report:
    """All fakes are one point."""
    fake = torch.full((32, 2), 3.0, requires_grad=True)
    real = torch.randn(32, 2)
    adversary.generator_loss(fake, real).backward()
    return adversary.discriminator_step(real, fake)


def test_it_warns_once_at_the_line_of_the_script() -> None:
    adversary, monitor = collapsing(100)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(1200):
            monitor(step(adversary))
    (warning,) = [w for w in caught if "HealthMonitor" in str(w.message)]
    assert warning.filename == __file__
    (finding,) = monitor.findings
    assert finding.cause in NAMES
    assert str(warning.message).startswith(f"{finding.title}: {finding.evidence}. {finding.fix}")
    assert f"docs/doctor.md#{finding.cause}" in str(warning.message)


def test_a_cause_that_comes_back_is_not_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that is gone before it was found three times in a row is not told at all."""
    found = iter([*"aab", *"bb", *"..", *"bbbb", *"aaa", *"bbb"])

    def diagnose(*args: Any, **options: Any) -> advloss.Diagnosis:
        cause = next(found)
        finding = advloss.Finding(cause=cause, title="", weight=1.0, evidence="", fix="", protocol="")
        return advloss.Diagnosis(findings=() if cause == "." else (finding,), verdict="", facts={})

    monkeypatch.setattr(_health, "diagnose", diagnose)
    adversary = advloss.Adversary("mlp", "hinge", seed=0)
    told: list[advloss.Finding] = []
    monitor = advloss.HealthMonitor(adversary, every=1, warn=told.append)
    report = step(adversary)
    monkeypatch.setattr(_health, "ENOUGH", 1)
    for number in range(1 + 17):  # the second report is enough to look
        monitor(report)
        assert len(monitor.findings) == (number >= 5) + (number >= 14), number
    assert [finding.cause for finding in told] == ["b", "a"]


def test_it_keeps_so_many_reports_and_no_more() -> None:
    adversary, monitor = collapsing(50)
    report = step(adversary)
    for _ in range(12 * _health.KEPT):
        monitor(report)
    assert len(monitor._rows) == _health.KEPT
    assert len(monitor._on_the_way) == 0


def test_before_the_start_step_there_is_nothing_to_say() -> None:
    adversary = advloss.Adversary("mlp", start_step=10**6)
    monitor = advloss.HealthMonitor(adversary, every=5)
    for _ in range(20):
        monitor(adversary.discriminator_step(torch.rand(4, 2), torch.rand(4, 2)))
    assert monitor.findings == []


def test_values_that_have_not_arrived_are_left_for_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a GPU that lags behind: no look waits."""
    adversary, monitor = collapsing(10)
    arrived = False
    monkeypatch.setattr(_late.Late, "arrived", property(lambda late: arrived))

    def read(late: Any) -> Any:
        assert arrived, "waited for the device"
        return late._values

    monkeypatch.setattr(_late.Late, "read", read)
    report = step(adversary)
    for _ in range(40):
        monitor(report)
    assert not monitor._rows
    assert monitor._on_the_way
    arrived = True
    for _ in range(10):
        monitor(report)
    assert monitor._rows
    assert not monitor._on_the_way


def test_noting_reads_nothing() -> None:
    """Between two looks no value goes to the host."""
    adversary, monitor = collapsing(10**6)
    report = step(adversary)
    with NoReading():
        for _ in range(20):
            monitor(report)
    assert len(monitor._on_the_way) == 20


def test_a_resumed_log_is_like_one_that_went_on(tmp_path: Path) -> None:
    """Nothing that a report says depends on where a run was interrupted."""
    torch.manual_seed(0)
    one, two = (advloss.Adversary("mlp", "hinge", seed=0) for _ in range(2))
    step(one)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    random = torch.get_rng_state()
    first = [step(one).as_dict() for _ in range(20)]
    torch.set_rng_state(random)
    assert [step(two).as_dict() for _ in range(20)] == first
