"""Two loops in one run, in turns: first their numbers are compared, then their memory, then their times."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.profiler import ProfilerActivity, profile, record_function

AGREEMENT = 1e-5
WARM = "benchmarks: warm"


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to measure.

    Attributes:
        device: where both loops run.
        pairs: how often each of two loops is timed.
        short: tiny sizes and few pairs, to see that everything runs.
    """

    device: str = "cpu"
    pairs: int = 20
    short: bool = False

    def size(self, whole: int, short: int) -> int:
        """A size of the measurement, or what it is in its short form."""
        return short if self.short else whole


class Loop(Protocol):
    """One way to do some work, with networks and optimizers of its own; two that are compared start alike."""

    def step(self) -> object:
        """The work."""

    def numbers(self) -> Mapping[str, Tensor]:
        """Losses and gradients of the step just made, by name, to be compared with the other loop's."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a comparison found: medians over pairs, quartiles of the ratio.

    Attributes:
        target: what the ratio of times should be at most; None where it is there to be known.
        difference: the largest relative difference between both loops' losses and gradients; None where different
            things are compared.
        ratio: our time over the other's, with its quartiles `low` and `high`; `milliseconds` and those of the other.
        memory: our peak of tensor memory over the other's; `megabytes` and those of the other.
    """

    work: str
    against: str
    target: float | None = None
    ratio: float
    low: float
    high: float
    milliseconds: float
    milliseconds_of_other: float
    memory: float | None = None
    megabytes: float | None = None
    megabytes_of_other: float | None = None
    difference: float | None = None
    pairs: int

    @property
    def holds(self) -> bool:
        """Whether the median is at most the target."""
        return self.target is None or self.ratio <= self.target

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**asdict(self), "holds": self.holds}


@dataclass(frozen=True, kw_only=True)
class Table:
    """Figures that are no comparison: how something grows."""

    title: str
    columns: tuple[str, ...]
    rows: list[list[Any]]


Make = Callable[[], Loop]


def compare(
    work: str,
    ours: Make,
    against: str,
    other: Make,
    settings: Settings,
    *,
    target: float | None = None,
    agreement: float | None = AGREEMENT,
) -> Row:
    """Compare two loops.

    Args:
        work: what is done, in words; `against` says how the other does it.
        target: what the ratio should be at most.
        agreement: by how much numbers may differ; None where they are not to be the same.

    Raises:
        AssertionError: the loops compute different things.
    """
    difference = None if agreement is None else _difference(f"{work}, {against}", ours(), other(), agreement)
    peaks = [peak_bytes(make, settings.device) / 1e6 for make in (ours, other)]
    one, two = ours(), other()
    times = pairs_of_seconds(one.step, two.step, settings)
    ratios = [a / b for a, b in times]
    low, _, high = statistics.quantiles(ratios, n=4)
    return Row(
        work=work,
        against=against,
        target=target,
        ratio=statistics.median(ratios),
        low=low,
        high=high,
        milliseconds=1e3 * statistics.median(a for a, _ in times),
        milliseconds_of_other=1e3 * statistics.median(b for _, b in times),
        memory=peaks[0] / peaks[1],
        megabytes=peaks[0],
        megabytes_of_other=peaks[1],
        difference=difference,
        pairs=settings.pairs,
    )


def pairs_of_seconds(
    one: Callable[[], object], other: Callable[[], object], settings: Settings
) -> list[tuple[float, float]]:
    """Seconds of two pieces of work that take turns, and turns in being first; the first rounds do not count."""
    warm, times = settings.size(3, 1), []
    for number in range(settings.pairs + warm):
        if number % 2:
            pair = seconds(one, settings.device), seconds(other, settings.device)
        else:
            pair = tuple(reversed((seconds(other, settings.device), seconds(one, settings.device))))
        times.append(pair)
    return times[warm:]


def seconds(work: Callable[[], object], device: str) -> float:
    """Of one piece of work: processor time of this process (one thread, the machine may be shared), or the GPU's."""
    if torch.device(device).type != "cuda":
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        began = clock()
        work()
        return clock() - began
    torch.cuda.synchronize()
    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    work()
    ended.record()
    torch.cuda.synchronize()
    return began.elapsed_time(ended) / 1e3


def peak_bytes(make: Make, device: str, steps: int = 3, warm: int | None = None) -> int:
    """The most that tensors took at once while a loop was built and made some steps.

    Args:
        warm: leave out building it, and so many steps before the others: what is alive then counts, peaks until then do not.
    """
    gc.collect()
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        _run(make, steps, warm, torch.cuda.reset_peak_memory_stats)
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        _run(make, steps, warm, _mark)
    now = most = 0
    for event in profiler.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
        elif event.name() == WARM:
            most = now
    return most


def gradients(optimizer: Optimizer, parameters: Iterable[Tensor]) -> Tensor:
    """What Adam saw in its first step, in one vector: its first moment is then the gradient times 1 - beta_1."""
    scale = 1 - optimizer.param_groups[0]["betas"][0]
    return torch.cat([optimizer.state[p]["exp_avg"].flatten() / scale for p in parameters])


def _run(make: Make, steps: int, warm: int | None, is_warm: Callable[[], object]) -> None:
    loop = make()
    for _ in range(warm or 0):
        loop.step()
    if warm is not None:
        is_warm()
    for _ in range(steps):
        loop.step()


def _mark() -> None:
    """In the profiler's record."""
    with record_function(WARM):
        pass


@contextmanager
def _same_draws() -> Iterator[None]:
    """Random points of a step are constants inside: two loops take their streams of random numbers in different orders."""
    drawn = torch.rand, torch.rand_like
    torch.rand = lambda *size, **options: torch.full(
        torch.Size(size) if isinstance(size[0], int) else size[0], 0.3, **options
    )
    torch.rand_like = lambda like, **options: torch.full_like(like, 0.3)
    try:
        yield
    finally:
        torch.rand, torch.rand_like = drawn


def _difference(what: str, one: Loop, other: Loop, most: float) -> float:
    with _same_draws():
        one.step()
        other.step()
    ours, theirs = one.numbers(), other.numbers()
    assert ours.keys() == theirs.keys(), f"{what}: {sorted(ours)} and {sorted(theirs)}"
    found = {name: _relative(ours[name], theirs[name]) for name in ours}
    assert max(found.values()) <= most, f"{what}: not the same numbers, relative differences {found}"
    return max(found.values())


def _relative(one: Tensor, other: Tensor) -> float:
    """Of vectors to the other's norm, of scalars (losses, which may cross 0) to 1 at least."""
    one, other = one.detach().double(), other.detach().double()
    return float((one - other).norm() / (other.norm() if other.ndim else other.abs().clamp_min(1.0)))
