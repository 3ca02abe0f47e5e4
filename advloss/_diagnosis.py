"""From a log to a ranked list of likely causes. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from advloss._causes import CAUSES, Cause
from advloss._facts import Facts
from advloss._run_log import RunLog

ENOUGH = 20
"""Logged steps of a discriminator's turn that are needed to say more than that a value is not finite."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A cause, and what speaks for it.

    Attributes:
        cause: its name, such as ``"mode-collapse"`` (docs/doctor.md has all).
        title: what it is called.
        weight: 0 to 1; findings are ranked by it: what explains others comes first.
        evidence: numbers of this run.
        fix: what to change.
        protocol: what to watch in the next run.
    """

    cause: str
    title: str
    weight: float
    evidence: str
    fix: str
    protocol: str


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was found in a run.

    Attributes:
        findings: likely causes, the likeliest first.
        verdict: ``"sick"``, ``"healthy"``, or ``"too short"`` to say.
        facts: numbers of its last quarter, by name.
        notes: what had to be passed over.
    """

    findings: tuple[Finding, ...]
    verdict: str
    facts: Mapping[str, float]
    notes: tuple[str, ...] = ()


def diagnose(log: RunLog, samples: Mapping[str, float] | None = None, data_size: int | None = None) -> Diagnosis:
    """Look for every cause in `log`, and in what samples of the generator show.

    Args:
        log: the run.
        samples: what `advloss._samples.look_at` found.
        data_size: number of samples in the data set.
    """
    facts = Facts(log, samples or {}, data_size)
    found = [finding for cause in CAUSES if (finding := _look(cause, facts)) is not None]
    enough = len(log.values("real_accuracy")) >= ENOUGH
    if not enough:
        found = [finding for finding in found if finding.cause == "non-finite"]
    found.sort(key=lambda finding: -finding.weight)
    numbers = {name: getattr(facts, name) for name in NUMBERS}
    return Diagnosis(
        findings=tuple(found),
        verdict="sick" if found else "healthy" if enough else "too short",
        facts={name: value for name, value in numbers.items() if value is not None},
        notes=tuple(log.notes),
    )


NUMBERS = {
    "accuracy": "0.6 to 0.8",
    "gap": "0.2 to 3",
    "pull": "0.2 to 30",
    "diversity": "0.8 to 1.1",
    "class_diversity": "0.7 to 1.1",
    "energy": "below 0.2",
    "mixed_accuracy": "as accuracy",
    "balance": "0.1 to 1",
    "rhythm": "below 0.4",
    "skipped": "0",
}
"""Facts that are shown, with what they are in healthy runs (tests/core/record_runs.py)."""


def _look(cause: Cause, facts: Facts) -> Finding | None:
    sign = cause.sign(facts)
    if sign is None:
        return None
    weight, evidence = sign
    return Finding(
        cause=cause.name,
        title=cause.title,
        weight=weight,
        evidence=evidence,
        fix=cause.fix,
        protocol=cause.protocol,
    )
