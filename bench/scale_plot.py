# Scale, the plot: what grows with the number of nodes and what does not, as an SVG of small panels.
#
# In:      curves, each with the figures of several clusters as `scale.py --json` writes them.    Out: the SVG's text.
# By hand and not with a plotting library: nine panels of lines and dots are less than such a dependency.
# Not here: measuring (scale_simulated.py, scale_real.py).

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple
from xml.sax.saxutils import escape

Row = dict[str, Any]
"""The figures of one cluster."""


class Curve(NamedTuple):
    """The same measurement of clusters of several sizes."""

    name: str
    rows: Sequence[Row]
    color: str
    dots: bool
    """Marks and no line: a few sizes only."""
    dashed: bool = False


Value = Callable[[Row], float | None]


def _cost(kind: str, figure: str) -> Value:
    def value(row: Row) -> float | None:
        of_kind = row.get(kind)  # an older file may not know the kind
        return of_kind[figure] if of_kind else None

    return value


def _placed(value: Value) -> Value:
    """Return it for clusters only in which some nodes do not hold a session."""
    return lambda row: value(row) if row["holders"] < row["nodes"] else None


def _share(records: float | None, sessions: int) -> float | None:
    return None if records is None else 100 * records / sessions


def _by_place(figure: str) -> dict[str, Value]:
    # Without all-to-all, beside which both would look like zero.
    return {
        "on a holder": _placed(_cost("write_holder", figure)),
        "on another node": _placed(_cost("write_copy", figure)),
    }


PANELS: Final[Sequence[tuple[str, dict[str, Value]]]] = (
    ("messages per write, on any node", {"": _cost("write", "messages")}),
    ("bytes per write, on any node", {"": _cost("write", "bytes")}),
    ("messages per write, placement by default", _by_place("messages")),
    ("bytes per write, placement by default", _by_place("bytes")),
    ("messages per create", {"": _cost("create", "messages")}),
    ("messages per read, on a node without the session", {"": _cost("read_cold", "messages")}),
    ("messages per read, on a holder", {"": _cost("read_holder", "messages")}),
    (
        "sessions a node keeps after a rest, % of all",
        {"": lambda row: _share(row["rested_records_mean"], row["sessions"])},
    ),
    ("idle: bytes per second and node", {"": lambda row: row["idle"]["bytes"]}),
)
"""Titles, and what is drawn for each curve: several lines where each has a name, which is written below its end."""
WIDTH, HEIGHT, COLUMNS = 360, 220, 2
LEFT, TOP, RIGHT, BOTTOM = 56, 34, 14, 30  # around the area that is drawn in


def svg(curves: Sequence[Curve]) -> str:
    """Return the panels below each other, two abreast, with a legend where the last panel would be."""
    rows = (len(PANELS) + COLUMNS) // COLUMNS
    parts = [_panel(index, title, values, curves) for index, (title, values) in enumerate(PANELS)]
    for line, curve in enumerate(curves):
        x, y = WIDTH * (len(PANELS) % COLUMNS) + LEFT, HEIGHT * (rows - 1) + TOP + 20 * line
        parts += [
            *_drawn(curve, [(x + 15, y)] if curve.dots else [(x, y), (x + 30, y)]),
            _text(x + 40, y + 4, curve.name),
        ]
    size = f'width="{WIDTH * COLUMNS}" height="{HEIGHT * rows}"'
    style = '<style>text{font:11px sans-serif;fill:#333}.title{font-weight:bold}</style><rect width="100%" '
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}>{style}height="100%" fill="#fff"/>{"".join(parts)}</svg>\n'


def _panel(index: int, title: str, values: dict[str, Value], curves: Sequence[Curve]) -> str:
    lines = [(curve, name, _points(curve, value)) for name, value in values.items() for curve in curves]
    most = max((row["nodes"] for curve in curves for row in curve.rows), default=4)
    nodes_max = 1 << (most - 1).bit_length()  # whole numbers at its quarters
    top = _round_up(max((y for _, _, points in lines for _, y in points), default=0))
    wide, high = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    parts = [_text(10, TOP - 14, title, 'class="title"')]
    for step in range(5):
        y, x = TOP + high * (1 - step / 4), LEFT + wide * step / 4
        parts.append(f'<path d="M{LEFT} {y}h{wide}" stroke="#ddd"/>')
        parts.append(_text(LEFT - 6, y + 4, f"{top * step / 4:g}", 'text-anchor="end"'))
        parts.append(_text(x, HEIGHT - BOTTOM + 16, f"{nodes_max * step / 4:g}", 'text-anchor="middle"'))
    for curve, name, points in lines:
        places = [(LEFT + wide * nodes / nodes_max, TOP + high * (1 - y / top)) for nodes, y in points]
        parts += _drawn(curve, places)
        if name and places and not curve.dots:
            parts.append(_text(places[-1][0] - 4, places[-1][1] + 16, name, 'text-anchor="end"'))
    x, y = WIDTH * (index % COLUMNS), HEIGHT * (index // COLUMNS)
    return f'<g transform="translate({x} {y})">{"".join(parts)}</g>'


def _points(curve: Curve, value: Value) -> list[tuple[int, float]]:
    return [(row["nodes"], y) for row in curve.rows if (y := value(row)) is not None]


def _drawn(curve: Curve, points: Sequence[tuple[float, float]]) -> list[str]:
    if curve.dots:
        return [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{curve.color}"/>' for x, y in points]
    places = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    dashes = ' stroke-dasharray="6 4"' if curve.dashed else ""
    return [f'<polyline points="{places}" fill="none" stroke="{curve.color}" stroke-width="2"{dashes}/>']


def _text(x: float, y: float, text: str, attributes: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>'


def _round_up(value: float) -> float:
    """Return the next number of 1, 2, 4 or 8 times a power of ten, so that quarters of it are read easily."""
    scale = 1.0
    while scale < value:
        scale *= 10
    return next((scale * part for part in (0.1, 0.2, 0.4, 0.8) if scale * part >= value), scale) if value else 1.0
