"""``advloss doctor RUN``: what is likely wrong with a run, and what to do about it. Imports torch for samples only."""

from __future__ import annotations

import json
import textwrap
from dataclasses import asdict
from pathlib import Path

from advloss._diagnosis import NUMBERS, Diagnosis, diagnose
from advloss._page import page
from advloss._run_log import read_log
from advloss.errors import OptionError


def consult(
    path: Path, samples: Path | None, data_size: int | None, *, page_file: Path | None = None, as_json: bool = False
) -> int:
    """Print a diagnosis of the log at `path`. Returns 1 when something was found, as a check that failed.

    Raises:
        LogError: the log or the samples cannot be read as such.
        OptionError: a data set without samples, or a page that cannot be written.
    """
    if data_size is not None and data_size < 1:
        raise OptionError(f"--data-size {data_size}: give the number of samples in the data set, 1 or more")
    log = read_log(path)
    seen: dict[str, float] = {}
    if samples is not None:
        from advloss._samples import look_at

        seen, notes = look_at(samples)
        log.notes += notes
    diagnosis = diagnose(log, seen, data_size)
    if page_file is not None:
        try:
            page_file.write_text(page(log, diagnosis), encoding="utf-8")
        except OSError as error:
            raise OptionError(
                f"{page_file} cannot be written ({error.strerror}); name another file for --html"
            ) from error
    if as_json:
        print(json.dumps({"log": log.name, "about": log.about, **asdict(diagnosis)}, indent=2))
    else:
        print(_text(log.name, diagnosis))
    return 1 if diagnosis.findings else 0


def _text(name: str, diagnosis: Diagnosis) -> str:
    lines = [f"{name}: {diagnosis.verdict}"]
    lines += [f"note: {note}" for note in diagnosis.notes]
    if diagnosis.verdict == "too short":
        lines.append("fewer than 20 logged steps in which the discriminator trained: log more, and ask again")
    for number, finding in enumerate(diagnosis.findings, 1):
        lines += ["", f"{number}. {finding.title} ({finding.cause})"]
        lines += _paragraph("", finding.evidence)
        lines += _paragraph("fix: ", finding.fix)
        lines += _paragraph("next run: ", finding.protocol)
    lines += ["", f"{'last quarter':16} {'':>9}  healthy"]
    lines += [f"{key:16} {value:9.3g}  {NUMBERS[key]}" for key, value in diagnosis.facts.items()]
    return "\n".join(lines)


def _paragraph(begin: str, text: str) -> list[str]:
    return textwrap.wrap(begin + text, 110, initial_indent="   ", subsequent_indent="   ")
