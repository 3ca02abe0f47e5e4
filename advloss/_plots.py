"""Curves as SVG: a few lines of markup, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP = 420, 170, 46, 20, 24
COLORS = ("#2f6f9f", "#d1495b", "#6b8f3a", "#8a5fb0")
MOST = 400

Points = Sequence[tuple[float, float]]


def plot(title: str, curves: Mapping[str, Points], healthy: tuple[float, float] | None = None) -> str:
    """A panel with `curves` of steps and values by their names; the band of `healthy` values is shaded. Empty without a point."""
    curves = {name: _thinned(points) for name, points in curves.items() if points}
    if not curves:
        return ""
    steps = [step for points in curves.values() for step, _ in points]
    values = [value for points in curves.values() for _, value in points] + list(healthy or ())
    first, last, low, high = min(steps), max(steps), min(values), max(values)
    high = high if high > low else low + 1.0

    def place(step: float, value: float) -> tuple[float, float]:
        x = LEFT + (WIDTH - LEFT - 8) * (step - first) / max(last - first, 1e-9)
        y = HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * (value - low) / (high - low)
        return x, y

    marks = []
    if healthy is not None:
        (x, bottom), (right, top) = place(first, healthy[0]), place(last, healthy[1])
        marks.append(
            f'<rect x="{x:.1f}" y="{top:.1f}" width="{right - x:.1f}" height="{bottom - top:.1f}" fill="#e4efdc"/>'
        )
    for value in (low, high):
        y = place(first, value)[1]
        marks.append(f'<line x1="{LEFT}" y1="{y:.1f}" x2="{WIDTH - 8}" y2="{y:.1f}" stroke="#ccd2da"/>')
        marks.append(f'<text x="{LEFT - 4}" y="{y + 3:.1f}" text-anchor="end">{value:.3g}</text>')
    for step, anchor in ((first, "start"), (last, "end")):
        x = place(step, low)[0]
        marks.append(f'<text x="{x:.1f}" y="{HEIGHT - 5}" text-anchor="{anchor}">{step:g}</text>')
    key = LEFT
    for (name, points), color in zip(curves.items(), COLORS):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in points))
        marks.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="1.2"/>')
        marks.append(f'<text x="{key}" y="14" style="fill: {color}">{escape(name)}</text>')
        key += 8 + 6 * len(name)
    label = escape(title, quote=True)
    return (
        f'<figure><figcaption>{label}</figcaption><svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
        f"{''.join(marks)}</svg></figure>"
    )


def _thinned(points: Points) -> Points:
    """At most 400 of them, evenly chosen, none beyond what can be drawn."""
    stride = -(-len(points) // MOST)
    return [(step, max(-1e30, min(1e30, value))) for step, value in points[::stride]]
