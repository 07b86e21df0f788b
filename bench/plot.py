"""A line plot as plain SVG, in greys and two colours that are legible on white and on black."""

import math
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

Points = Sequence[tuple[float, float]]

_WIDTH, _HEIGHT = 760, 420
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 24, 48, 64
_COLOURS = ("#2f81f7", "#d9730d", "#3a9d5d")
_GREY, _GRID = "#808080", "#80808055"


def log_x_plot(title: str, lines: Mapping[str, Points], *, x_label: str, y_label: str) -> str:
    """An SVG whose x axis is logarithmic and whose y axis begins at 0. A line's name stands in the legend."""
    xs = sorted({x for points in lines.values() for x, _ in points})
    step = _round_step(max(y for points in lines.values() for _, y in points) / 4)
    top = step * math.ceil(max(y for points in lines.values() for _, y in points) / step)
    low, high = math.log10(xs[0]), math.log10(xs[-1])

    def at(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - low) / ((high - low) or 1)
        return (
            _LEFT + across * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - y / top * (_HEIGHT - _TOP - _BOTTOM),
        )

    parts = [_text(_WIDTH / 2, 24, title, size=16)]
    for number in range(round(top / step) + 1):
        x, y = at(xs[0], number * step)
        parts += [_line(x, y, _WIDTH - _RIGHT, y), _text(x - 10, y + 4, f"{number * step:,.0f}", anchor="end")]
    for value in xs:
        x, y = at(value, 0)
        parts += [_line(x, _TOP, x, y), _text(x, y + 20, f"{value:,.0f}")]
    parts += [_text(_WIDTH / 2, _HEIGHT - 14, x_label), _text(-(_HEIGHT / 2), 18, y_label, turned=True)]
    for number, (name, points) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        parts += _curve([at(x, y) for x, y in points], colour)
        y = _HEIGHT - _BOTTOM - 40 + 20 * number
        parts += [_curve([(_LEFT + 16, y), (_LEFT + 46, y)], colour)[0]]
        parts += [_text(_LEFT + 54, y + 4, name, anchor="start")]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}"'
    return "\n".join([f'{head} height="{_HEIGHT}" font-family="sans-serif" font-size="13">', *parts, "</svg>", ""])


def _round_step(least: float) -> float:
    """The smallest of 1, 2, 5, 10, 20, … that is no less."""
    power = 10.0 ** math.floor(math.log10(least))
    return next(power * times for times in (1, 2, 5, 10) if power * times >= least)


def _text(x: float, y: float, text: str, *, anchor: str = "middle", size: int = 13, turned: bool = False) -> str:
    turn = ' transform="rotate(-90)"' if turned else ""
    place = f'x="{x:.0f}" y="{y:.0f}" text-anchor="{anchor}" font-size="{size}" fill="{_GREY}"{turn}'
    return f"<text {place}>{escape(text)}</text>"


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line x1="{x1:.0f}" y1="{y1:.0f}" x2="{x2:.0f}" y2="{y2:.0f}" stroke="{_GRID}"/>'


def _curve(points: Points, colour: str) -> list[str]:
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2.5"/>',
        *(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>' for x, y in points),
    ]
