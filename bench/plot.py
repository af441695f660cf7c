"""A line chart as SVG text: two logarithmic axes, a line for each series. Knows nothing of what it shows."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from xml.sax.saxutils import escape

WIDTH: Final = 760
HEIGHT: Final = 440
LEFT, RIGHT, TOP, BOTTOM = 70, 210, 44, 52
COLOURS: Final = ("#1b6ca8", "#c8553d", "#2e8b57", "#8a5fb0", "#b8860b", "#444444", "#d36ba6", "#2aa3a3")
Series = Mapping[str, Sequence[tuple[float, float]]]


def log_chart(title: str, x_label: str, y_label: str, series: Series) -> str:
    """Of values above zero. `name, more` is dashed, in the colour of `name`."""
    return _Chart(title, x_label, y_label, series).text()


class _Chart:
    def __init__(self, title: str, x_label: str, y_label: str, series: Series) -> None:
        self._title, self._x_label, self._y_label, self._series = title, x_label, y_label, series
        points = [point for line in series.values() for point in line]
        self._x = _decades([x for x, _ in points])
        self._y = _decades([y for _, y in points])

    def text(self) -> str:
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}"'
            ' font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
            _text(LEFT, 24, self._title, size=15),
            *self._grid(),
            _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, self._x_label, anchor="middle"),
            f'<g transform="rotate(-90 18 {HEIGHT / 2})">',
            _text(18, HEIGHT / 2, self._y_label, anchor="middle"),
            "</g>",
            *self._lines(),
            "</svg>",
        ]
        return "\n".join(parts) + "\n"

    def _grid(self) -> Iterator[str]:
        for power in range(self._x[0], self._x[1] + 1):
            x = self._at_x(10.0**power)
            yield _line(x, TOP, x, HEIGHT - BOTTOM, "#dddddd")
            yield _text(x, HEIGHT - BOTTOM + 18, _number(power), anchor="middle")
        for power in range(self._y[0], self._y[1] + 1):
            y = self._at_y(10.0**power)
            yield _line(LEFT, y, WIDTH - RIGHT, y, "#dddddd")
            yield _text(LEFT - 8, y + 4, _number(power), anchor="end")

    def _lines(self) -> Iterator[str]:
        solid = [name for name in self._series if "," not in name]
        for place, (name, points) in enumerate(self._series.items()):
            base, dashed, _ = name.partition(",")
            colour = COLOURS[(solid.index(base) if base in solid else place) % len(COLOURS)]
            dash = ' stroke-dasharray="6 4"' if dashed else ""
            at = " ".join(f"{self._at_x(x):.1f},{self._at_y(y):.1f}" for x, y in points)
            yield f'<polyline points="{at}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>'
            yield from (
                f'<circle cx="{self._at_x(x):.1f}" cy="{self._at_y(y):.1f}" r="3" fill="{colour}"/>'
                for x, y in points
            )
            key = TOP + 10 + 18 * place
            left = WIDTH - RIGHT + 16
            yield _line(left, key, left + 24, key, colour, f' stroke-width="2"{dash}')
            yield _text(left + 30, key + 4, name)

    def _at_x(self, value: float) -> float:
        return LEFT + _share(value, self._x) * (WIDTH - RIGHT - LEFT)

    def _at_y(self, value: float) -> float:
        return HEIGHT - BOTTOM - _share(value, self._y) * (HEIGHT - BOTTOM - TOP)


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """The powers of ten around them, at least one decade."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _share(value: float, of: tuple[int, int]) -> float:
    return (math.log10(value) - of[0]) / (of[1] - of[0])


def _number(power: int) -> str:
    return f"{10**power:,}" if power >= 0 else f"{10.0**power:g}"


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, more: str = "") -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{more}/>'


def _text(x: float, y: float, of: str, *, anchor: str = "start", size: int = 12) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(of)}</text>'
