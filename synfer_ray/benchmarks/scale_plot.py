"""The scale simulation as one picture: rows and memory over time, in SVG."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, HEIGHT, MARGIN = 420, 240, 52
COLOURS = ("#1f6fb2", "#d1495b", "#2e8b57", "#8a6d3b")

Line = tuple[str, Sequence[float], Sequence[float]]
"""A name, and the x and y of its points."""


def plot_scale(result: Mapping[str, Any]) -> str:
    """Returns the SVG of a result of `simulate_scale`: settled rows, driver's memory and Ray's memory."""
    runs = result["runs"]
    rows = [
        (name, run["commit_seconds"], growing(run["rows"], len(run["commit_seconds"])))
        for name, run in runs.items()
    ]
    panels = [("rows written", rows)]
    for kind in ("driver", "gcs_server"):
        lines = [(name, run["memory_seconds"], run["memory_mib"][kind]) for name, run in runs.items()]
        panels.append((f"MiB of the {kind.replace('_', ' ')}", lines))
    drawn = [panel(title, lines, place * WIDTH) for place, (title, lines) in enumerate(panels)]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH * len(panels)} {HEIGHT}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        f"{''.join(drawn)}</svg>\n"
    )


def growing(last: float, points: int) -> list[float]:
    """Returns `points` values from `last / points` to `last`: shards of one size, one after the other."""
    return [last * (point + 1) / points for point in range(points)]


def panel(title: str, lines: Sequence[Line], left: float) -> str:
    """Draws lines over seconds, both axes from 0, with the largest values as their only marks."""
    right = max(max(x) for _, x, _ in lines) or 1.0
    top = max(max(y) for _, _, y in lines) or 1.0
    inner_width, inner_height = WIDTH - MARGIN - 16, HEIGHT - 84
    x0, y0 = left + MARGIN, HEIGHT - 36

    def point(x: float, y: float) -> str:
        return f"{x0 + x / right * inner_width:.1f},{y0 - y / top * inner_height:.1f}"

    parts = [
        f'<text x="{x0}" y="20" font-weight="bold">{escape(title)}</text>',
        f'<path d="M{point(0, top)} L{point(0, 0)} L{point(right, 0)}" fill="none" stroke="#444"/>',
        f'<text x="{x0 - 6}" y="{y0 - inner_height + 4}" text-anchor="end">{top:,.0f}</text>',
        f'<text x="{x0 - 6}" y="{y0 + 4}" text-anchor="end">0</text>',
        f'<text x="{x0 + inner_width}" y="{y0 + 18}" text-anchor="end">{right:,.0f} s</text>',
    ]
    for place, (name, xs, ys) in enumerate(lines):
        colour = COLOURS[place % len(COLOURS)]
        points = " ".join(point(x, y) for x, y in zip(xs, ys))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts.append(f'<text x="{x0 + 110 * place}" y="38" fill="{colour}">{escape(name)}</text>')
    return "".join(parts)
