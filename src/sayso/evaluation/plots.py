"""Plots as SVG, and the page that holds them: one style, light and dark, nothing from elsewhere."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

from sayso.model.files import read_utf8

STYLE = Path(__file__).with_name("report.html")
COLOURS = 8
"""Of lines, as in report.html: more begin anew."""


def page(title: str, body: str) -> str:
    """A whole HTML page; tables scroll where they are too wide.

    Args:
        title: Plain text.
        body: HTML.
    """
    text = Template(read_utf8(STYLE)).substitute(
        title=html.escape(title), body=body.replace("<table>", '<div class="wide"><table>')
    )
    return text.replace("</table>", "</table></div>")


@dataclass(frozen=True)
class Scale:
    """A line from values to places of a picture, in units of the SVG."""

    low: float
    high: float
    start: float
    stop: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.stop - self.start)


def scale_of(values: Sequence[float], start: float, stop: float) -> Scale:
    """From the lowest to the highest value, of one at least, with a little room on both sides."""
    low, high = min(values), max(values)
    room = (high - low) * 0.05 or 0.5
    return Scale(low - room, high + room, start, stop)


def axes(across: Scale, up: Scale, below: str, beside: str, times: float = 1) -> list[str]:
    """Axes with a few values, and their names; those that go up are shown `times` as large."""
    bottom, left = up.start, across.start
    parts = [f'<path class="axis" d="M{left} {up.stop}V{bottom}H{across.stop}"/>']
    for x in _round(across.low, across.high):
        parts.append(f'<text x="{across(x):.0f}" y="{bottom + 16}">{x:g}</text>')
    for y in _round(times * up.low, times * up.high):
        parts.append(f'<text class="end" x="{left - 6}" y="{up(y / times) + 4:.0f}">{y:g}</text>')
    parts.append(f'<text x="320" y="{bottom + 34}">{below}</text>')
    parts.append(f'<text class="end" x="{across.stop}" y="{up.stop}">{beside}</text>')
    return parts


def _round(low: float, high: float) -> list[float]:
    """Two to five round numbers in between."""
    size = 10 ** math.floor(math.log10((high - low) / 2))
    step = next(step for step in (5 * size, 2 * size, size) if (high - low) / step >= 2)
    return [round(i * step, 9) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def svg(height: int, parts: Sequence[str], label: str) -> str:
    """A picture, 600 wide, of these parts; `label` is for those who do not see it."""
    inside = "".join(parts)
    return f'<svg viewBox="0 0 600 {height}" role="img" aria-label="{label}">{inside}</svg>'


def legend(names: Sequence[str]) -> str:
    """Names in the colours of their lines."""
    items = (f'<li class="c{i % COLOURS}">{html.escape(name)}</li>' for i, name in enumerate(names))
    return f'<ul class="legend">{"".join(items)}</ul>'
