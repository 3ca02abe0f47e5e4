"""Results as Markdown, from their JSON. Needs no torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

ROW = ("work", "against", "time", "quartiles", "target", "peak memory", "numbers differ by")


def table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Iterator[str]:
    """Lines of a table."""
    yield f"| {' | '.join(columns)} |"
    yield "|" + "---|" * len(columns)
    for row in rows:
        yield f"| {' | '.join(f'{cell:.3g}' if isinstance(cell, float) else str(cell) for cell in row)} |"


def results(kept: Mapping[str, Any]) -> Iterator[str]:
    """Everything in a file of results: comparisons with a target, others, and tables."""
    rows = [row for found in kept.values() for row in found["rows"]]
    yield from table(ROW, [_cells(row) for row in rows if row["target"] is not None])
    yield from ("", "Without a target:", "")
    yield from table(ROW, [_cells(row) for row in rows if row["target"] is None])
    for found in kept.values():
        yield from tables(found)
    yield from ("", *_circumstances(kept))


def tables(found: Mapping[str, Any]) -> Iterator[str]:
    """Those of one benchmark, with their titles."""
    for one in found["tables"]:
        yield from ("", f"{one['title']}:", "", *table(one["columns"], one["rows"]))


def taken(found: Mapping[str, Any]) -> str:
    """Where and when a benchmark was run."""
    made = found["circumstances"]
    return f"commit {made['commit']}, {made['date']}, torch {made['torch']}, {made['device']}"


def _cells(row: Mapping[str, Any]) -> list[str]:
    """Bold where a target is missed, and where the peak is above the other's by more than the counting's noise."""
    time, target = f"{row['ratio']:.3f}", row["target"]
    memory = "" if row["memory"] is None else f"{row['memory']:.3f}"
    if target is not None and memory and row["memory"] > 1.005:
        memory = f"**{memory}**"
    return [
        row["work"],
        row["against"],
        time if row["holds"] else f"**{time}**",
        f"{row['low']:.3f} to {row['high']:.3f}",
        "" if target is None else f"{target:.2f}",
        f"{memory} ({row['megabytes']:.0f} MB)" if memory else "",
        "" if row["difference"] is None else f"{row['difference']:.0e}",
    ]


def _circumstances(kept: Mapping[str, Any]) -> Iterator[str]:
    """One sentence for each set of benchmarks that were run alike."""
    alike: dict[str, list[str]] = {}
    for name, found in kept.items():
        alike.setdefault(f"{taken(found)}, {found['circumstances']['pairs']} pairs", []).append(name)
    for words, names in alike.items():
        yield f"Taken at {words}: {', '.join(names)}."
