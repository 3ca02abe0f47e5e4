"""What a log says about a run, in numbers that mean the same for every loss, discriminator and scale of samples."""

from __future__ import annotations

import math
import statistics
from bisect import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from advloss._run_log import RunLog

_BOUNDED = {
    "[-1, 1]": (-1.02, -0.5, 0.5, 1.02),
    "[0, 1]": (-0.01, 0.2, 0.5, 1.02),
    "[0, 255]": (-0.5, 60.0, 128.0, 255.5),
}


@dataclass
class Facts:
    """Medians over the last quarter of a run, None where the log does not say.

    Args:
        log: the run.
        samples: what `advloss._samples.look_at` found in samples of the generator.
        data_size: number of samples in the data set.
    """

    log: RunLog
    samples: Mapping[str, float] = field(default_factory=dict)
    data_size: int | None = None

    @cached_property
    def accuracy(self) -> float | None:
        """Mean of both sides' accuracies, by the loss's own measure; healthy at about 0.6 to 0.8."""
        return self._mean("real_accuracy", "fake_accuracy")

    def accuracy_at(self, start: float, end: float) -> float | None:
        """The same in another part of the run."""
        return self._mean("real_accuracy", "fake_accuracy", start, end)

    @cached_property
    def gap(self) -> float | None:
        """Mean real logit less mean fake logit."""
        real, fake = dict(self.log.values("real_logits", 0.75)), dict(self.log.values("fake_logits", 0.75))
        gaps = [real[step] - fake[step] for step in real.keys() & fake.keys()]
        return statistics.median(gaps) if gaps else None

    @cached_property
    def level(self) -> float | None:
        """The largest of |gap|, |real logit| and |fake logit|; |gap| alone where only differences count."""
        sides = [abs(v) for name in ("real_logits", "fake_logits") if (v := self.log.median(name)) is not None]
        if self.gap is None:
            return None
        return abs(self.gap) if self.game("differences_only") else max(abs(self.gap), *sides)

    @cached_property
    def pull(self) -> float | None:
        """By how much the generator's loss would change along its gradient on the way from one real to another: the
        gradient that reaches a fake times the mean distance of reals."""
        gradient, spread = self.log.median("fake_grad_norm"), self.log.median("signals/spread")
        return None if gradient is None or spread is None else gradient * spread

    @cached_property
    def slope(self) -> float | None:
        """Norm of the critic's slope at a fake, where the loss has no lower bound (Wasserstein); a penalty holds it at 1."""
        return self.log.median("fake_grad_norm") if self.game("unbounded") else None

    @cached_property
    def diversity(self) -> float | None:
        """Mean distance of two fakes over that of two reals."""
        return self.log.median("signals/diversity")

    @cached_property
    def class_diversity(self) -> float | None:
        """The same within a class."""
        return self.log.median("signals/class_diversity")

    @cached_property
    def energy(self) -> float | None:
        """Energy distance of fakes from reals over the mean distance of reals: 0 is no difference, 0.25 is visible."""
        distance = self.log.median("signals/distance")
        return None if distance is None or self.diversity is None else 2 * distance - 1 - self.diversity

    @cached_property
    def mixed_accuracy(self) -> float | None:
        """Accuracy on batches of which half is real."""
        return self.log.median("signals/mixed_accuracy", 0.5)

    @cached_property
    def balance(self) -> float | None:
        """Four times R1's (or R2's) term over the logit gap: 1 where the penalty alone holds the logits back.

        A discriminator that scales its logits by s pays ``s^2 P`` and gains ``s gap / 2`` of logistic loss near 0: at the
        minimum ``gap = 4 P``.
        """
        terms = [
            term / self.every(name)
            for name in ("r1", "r2")
            if (term := self.log.median(f"regularizers/{name}")) is not None
        ]
        if not terms or self.gap is None:
            return None
        return 4 * statistics.mean(terms) / max(abs(self.gap), 1e-12)

    def every(self, name: str) -> float:
        """Steps from one time that a regularizer is due to the next."""
        return _number(_part(_part(self.log.about, "regularizers"), name).get("every")) or 1.0

    @cached_property
    def skipped(self) -> float:
        """Share of steps that were skipped or whose values are not finite."""
        names = ("loss", "real_logits", "fake_logits", "generator_loss")
        columns = [self.log.columns[name] for name in names if name in self.log.columns]
        sick = self.log.columns.get("skipped", [None] * len(self.log.steps))
        bad = [
            bool(flag) or any(value is not None and not math.isfinite(value) for value in row)
            for flag, *row in zip(sick, *columns)
        ]
        return sum(bad) / len(bad) if bad else 0.0

    @cached_property
    def rates(self) -> float | None:
        """The discriminator's learning rate over the generator's."""
        own, other = _number(_part(self.log.about, "optimizer").get("lr")), _number(self.log.about.get("generator_lr"))
        return own / other if own and other else None

    @cached_property
    def passes(self) -> float | None:
        """How often the discriminator was shown each sample of the data set."""
        shape = self.log.about.get("samples")
        batch = _number(shape[0]) if isinstance(shape, list) and shape else None
        if not self.data_size or not batch:
            return None
        return self.log.steps[-1] * (_number(self.log.about.get("discriminator_steps")) or 1.0) * batch / self.data_size

    @cached_property
    def copies(self) -> float | None:
        """Share of the samples that are near-copies of an earlier one."""
        count = self.samples.get("count")
        return 1 - self.samples["distinct"] / count if count and "distinct" in self.samples else None

    @cached_property
    def distinct_draws(self) -> float | None:
        """So many different ones as many draws from the data set would have; None where hardly any would repeat."""
        count, size = self.samples.get("count"), self.data_size
        if not count or not size:
            return None
        distinct = size * (1 - (1 - 1 / size) ** count)
        return distinct if distinct < 0.97 * count else None

    def game(self, name: str) -> bool:
        """Whether the loss is so (`Adversary.describe`, under ``"game"``)."""
        return _part(self.log.about, "game").get(name) is True

    @cached_property
    def ranges(self) -> tuple[str, str] | None:
        """In which usual range of values reals and fakes lie; "other" where in none."""
        ends = [[self.log.median(f"signals/{side}_{end}") for end in ("low", "high")] for side in ("real", "fake")]
        if any(value is None for side in ends for value in side):
            return None
        real, fake = (_range(*side) for side in ends)
        return real, fake

    @cached_property
    def rhythm(self) -> float | None:
        """How regularly the accuracies swing in the second half, together or in turns: the height of a peak of the
        autocorrelation, after a trough as deep; 0 where there are fewer than three periods."""
        real, fake = dict(self.log.values("real_accuracy", 0.5)), dict(self.log.values("fake_accuracy", 0.5))
        steps = sorted(real.keys() & fake.keys())
        if len(steps) < 40:
            return None
        even = [steps[0] + (steps[-1] - steps[0]) * i / 199 for i in range(200)]
        nearest = [min(bisect(steps, step), len(steps) - 1) for step in even]
        return max(_rhythm([real[steps[i]] + sign * fake[steps[i]] for i in nearest]) for sign in (-1, 1))

    def _mean(self, one: str, other: str, start: float = 0.75, end: float = 1.0) -> float | None:
        values = [self.log.median(name, start, end) for name in (one, other)]
        return None if None in values else sum(v for v in values if v is not None) / 2


def _part(mapping: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """A mapping inside another; an empty one where there is something else: a log's header is what anybody wrote."""
    value = mapping.get(name)
    return value if isinstance(value, Mapping) else {}


def _number(value: Any) -> float | None:
    """A number above 0; None for anything else."""
    usable = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < 1e300
    return float(value) if usable else None


def _range(low: float | None, high: float | None) -> str:
    assert low is not None
    assert high is not None
    for name, (lowest, low_end, high_end, highest) in _BOUNDED.items():
        if lowest <= low <= low_end and high_end <= high <= highest:
            return name
    return "other"


def _rhythm(values: list[float]) -> float:
    mean = statistics.fmean(values)
    deviations = [value - mean for value in values]
    power = sum(d * d for d in deviations) / len(deviations)
    if power < 0.1**2:  # accuracies that hardly move
        return 0.0
    lags = range(2, len(deviations) // 3)
    correlation = {
        lag: sum(a * b for a, b in zip(deviations, deviations[lag:])) / (len(deviations) - lag) / power for lag in lags
    }
    crossing = next((lag for lag in lags if correlation[lag] < 0), lags[-1])
    peak = max(lags[lags.index(crossing) :], key=lambda lag: correlation[lag])
    trough = min(correlation[lag] for lag in lags if crossing <= lag <= peak)
    return max(0.0, min(correlation[peak], -trough))
