"""``advloss check``: the conformance kit on what is installed, as a table."""

from __future__ import annotations

import json
import sys
from collections import Counter
from contextlib import redirect_stdout
from dataclasses import asdict

from advloss.specs import Kind
from advloss.testing import check


def run_checks(name: str, kind: Kind | None, *, as_json: bool) -> int:
    """Print a row a check, as it comes in. Returns 1 when one failed."""
    results = []
    report = sys.stdout
    with redirect_stdout(sys.stderr):  # whatever the component prints
        for result in check(name, kind):
            results.append(result)
            if not as_json:
                line = f"{result.status:15} {f'{result.kind} {result.name}':36} {result.check:28} {result.detail}"
                print(line, file=report, flush=True)
    counts = Counter(result.status for result in results)
    if as_json:
        print(json.dumps([asdict(result) for result in results], indent=2))
    else:
        print(", ".join(f"{counts[status]} {status}" for status in ("ok", "failed", "not applicable")))
    return 1 if counts["failed"] else 0
