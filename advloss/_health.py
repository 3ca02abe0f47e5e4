"""A watch over a training: what `advloss doctor` would say of it, while it runs."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from advloss._adversary import Adversary
from advloss._diagnosis import ENOUGH, Finding, diagnose
from advloss._late import Late
from advloss._report import Report
from advloss._run_log import RunLog
from advloss._warn import warn_user

NOTE_EVERY, KEPT, IN_A_ROW = 10, 250, 3


class HealthMonitor:
    """Call it with each report; it warns once for each cause of failure, and says what to do.

        monitor = advloss.HealthMonitor(adversary)
        ...
        monitor(adversary.discriminator_step(real, fake))

    It keeps one report in ten, and those in which samples were measured, and every `every` calls looks for the causes of
    docs/doctor.md in the last 250 of them. It warns of the likeliest, once that has been found three times in a row. On a
    GPU values travel to the host behind the step, and are read when they are there: no call waits for the device. Under
    several processes, call it in one.

    Args:
        adversary: whose reports it is given.
        every: calls from one look to the next.
        data_size: number of samples in the data set, to tell memorization.
        generator_lr: the generator's learning rate before any schedule, to compare the discriminator's with.
        warn: what is done with a `Finding`; default: a warning at the line of the script.

    Attributes:
        findings: what it has warned of, in that order.
    """

    def __init__(
        self,
        adversary: Adversary,
        *,
        every: int = 200,
        data_size: int | None = None,
        generator_lr: float | None = None,
        warn: Callable[[Finding], None] | None = None,
    ) -> None:
        self.findings: list[Finding] = []
        self._adversary, self._every, self._data_size, self._generator_lr = adversary, every, data_size, generator_lr
        self._warn = warn or _warn
        self._calls = 0
        self._on_the_way: deque[tuple[int, list[str], Late]] = deque()
        self._rows: deque[tuple[int, dict[str, float]]] = deque(maxlen=KEPT)
        self._suspected, self._times = "", 0

    def __call__(self, report: Report) -> None:
        """Take a report."""
        self._calls += 1
        if report.loss is not None and (report.signals or self._calls % NOTE_EVERY == 0):
            names, values = zip(*_scalars(report))
            self._on_the_way.append((report.step, list(names), Late(torch.stack(values))))
        if self._calls % self._every == 0:
            self._look()

    def _look(self) -> None:
        while self._on_the_way and self._on_the_way[0][2].arrived:
            step, names, values = self._on_the_way.popleft()
            self._rows.append((step, dict(zip(names, values.read().tolist()))))
        if len(self._rows) < 2 * ENOUGH:
            return
        about = {**self._adversary.describe(), "generator_lr": self._generator_lr}
        log = RunLog(about=about)
        for step, numbers in self._rows:
            log.add(step, numbers)
        found = diagnose(log, data_size=self._data_size).findings
        likeliest = found[0].cause if found else ""
        self._times = self._times + 1 if likeliest == self._suspected else 1
        self._suspected = likeliest
        if found and self._times == IN_A_ROW and likeliest not in [known.cause for known in self.findings]:
            self.findings.append(found[0])
            self._warn(found[0])


def _warn(finding: Finding) -> None:
    warn_user(
        f"{finding.title}: {finding.evidence}. {finding.fix} (advloss.HealthMonitor, docs/doctor.md#{finding.cause})"
    )


@torch.no_grad()
def _scalars(report: Report) -> Iterator[tuple[str, Tensor]]:
    """`Report.as_dict` as float32 tensors on one device, unread."""
    assert report.loss is not None
    device = report.loss.device
    names = ("loss", "real_logits", "fake_logits", "real_accuracy", "fake_accuracy", "grad_norm", "fake_grad_norm")
    tensors = {name: value for name in names if (value := getattr(report, name)) is not None}
    tensors.update({f"regularizers/{name}": term for name, term in report.regularizers.items()})
    tensors.update({f"signals/{name}": signal for name, signal in report.signals.items()})
    skipped = report.skipped
    tensors["skipped"] = skipped if isinstance(skipped, Tensor) else report.loss.new_full((), float(skipped))
    for name, tensor in tensors.items():
        yield name, tensor.detach().reshape(()).to(device, torch.float32, non_blocking=True)
