"""Pictures of answers as inline SVG: confusion matrices, reliability, ROC curves, histograms.

As in charts.py: text out, colours from classes in style.py, a <title> on every mark; where a picture is all colour, the
same numbers stand in its text or beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from toolkit.report import charts
from toolkit.report.markup import Markup, join, tag

SIDE, EDGE, RIGHT, FOOT = 300.0, 40.0, 18.0, 36.0  # of square plots: the whole, left and right of the plot, under it
GRID, NAMES = 320.0, 74.0  # of a matrix: its cells, and the room for names at its left and foot
NAMED = 20  # most classes whose names stand at a matrix
COUNTED = 12  # most classes whose cells hold their counts
SOLID = 0.9  # shade from which a cell's count is written in the colour of the page
LONGEST_NAME = 11  # characters of a class at a matrix; the cell's title has all


@dataclass(frozen=True)
class Cell:
    """One cell of a matrix. shade: 0..1. kind: "right", "wrong", "better" or "worse"."""

    row: int
    column: int
    text: str
    title: str
    shade: float
    kind: str


# ---------------------------------------------------------------- matrices


def matrix(cells: Sequence[Cell], classes: Sequence[str], *, summary: str) -> Markup:
    """Rows are labels, columns decisions, both in the order of the classes."""
    size, named = len(classes), len(classes) <= NAMED
    left = NAMES if named else 16.0
    step = GRID / size
    drawn = [_cell(cell, left, step, counted=size <= COUNTED) for cell in cells]
    frame = tag("rect", x=left, y=0.5, width=GRID, height=GRID, class_="frame")
    names = _names(classes, left, step) if named else _axes(left)
    return _svg(join(frame, drawn, names), summary, left + GRID + 1, GRID + left + 4)


def _cell(cell: Cell, left: float, step: float, *, counted: bool) -> Markup:
    x, y = left + cell.column * step, cell.row * step
    gap = 1.0 if step > 8 else 0.0
    opacity = f"{0.12 + 0.88 * cell.shade:.2f}"
    block = tag(
        "rect",
        x=x + gap / 2,
        y=y + gap / 2 + 0.5,
        width=max(step - gap, 1.0),
        height=max(step - gap, 1.0),
        fill_opacity=opacity,
        class_=f"cell {cell.kind}",
    )
    strong = " strong" if cell.shade > SOLID else ""
    number = (
        tag("text", cell.text, x=x + step / 2, y=y + step / 2 + 4, class_=f"count middle{strong}") if counted else None
    )
    return tag("g", tag("title", cell.title), block, number)


def _names(classes: Sequence[str], left: float, step: float) -> Markup:
    parts: list[Markup] = []
    for place, name in enumerate(classes):
        short = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
        middle = (place + 0.5) * step
        parts.append(tag("text", short, x=left - 6, y=middle + 4, class_="tick end"))
        x, y = left + middle + 4, GRID + 8
        parts.append(tag("text", short, x=x, y=y, class_="tick end", transform=f"rotate(-90 {x:.1f} {y:.1f})"))
    return join(parts)


def _axes(left: float) -> Markup:
    middle = GRID / 2
    return join(
        tag("text", "label", x=11.0, y=middle, class_="tick middle", transform=f"rotate(-90 11 {middle:.0f})"),
        tag("text", "decision", x=left + middle, y=GRID + 14, class_="tick middle"),
    )


# ---------------------------------------------------------------- square plots


def reliability(lines: Mapping[str, Sequence[tuple[int, float, float]]], *, summary: str) -> Markup:
    """Share right against confidence, one line a model, of (images, confidence, share right) for each bin."""
    x_scale, y_scale = _unit_scales()
    parts = [_unit_frame(x_scale, y_scale, "confidence", "share right"), _diagonal(x_scale, y_scale)]
    for place, (name, bins) in enumerate(lines.items()):
        total = sum(images for images, _, _ in bins) or 1
        full = [(images, sure, right) for images, sure, right in bins if images]
        path = "M" + "L".join(f"{x_scale(sure):.1f} {y_scale(right):.1f}" for _, sure, right in full) if full else ""
        parts.append(tag("path", d=path, class_=f"curve c{place % 4}") if path else Markup(""))
        for images, sure, right in full:
            title = f"{name}: {images:,} images at {100 * sure:.0f}% confidence, {100 * right:.0f}% right"
            radius = 1.8 + 4.5 * (images / total) ** 0.5
            at = {"cx": x_scale(sure), "cy": y_scale(right)}
            dot = tag("circle", **at, r=radius, class_=f"dot c{place % 4}")
            parts.append(tag("g", tag("title", title), dot))
    return _svg(join(parts), summary, SIDE, SIDE)


def roc(lines: Mapping[str, Sequence[tuple[float, float]]], *, summary: str) -> Markup:
    """True against false positive rate, one line a model or class."""
    x_scale, y_scale = _unit_scales()
    parts = [_unit_frame(x_scale, y_scale, "false positive rate", "true positive rate"), _diagonal(x_scale, y_scale)]
    for place, (name, points) in enumerate(lines.items()):
        path = "M" + "L".join(f"{x_scale(x):.1f} {y_scale(y):.1f}" for x, y in points)
        parts.append(tag("g", tag("title", name), tag("path", d=path, class_=f"curve c{place % 4}")))
    return _svg(join(parts), summary, SIDE, SIDE)


def histogram(counts: Sequence[int], low: float, high: float, *, label: str, summary: str) -> Markup:
    """Bars of equal width from low to high, each named by its own range and count."""
    most, width = max(counts, default=0) or 1, (SIDE - EDGE - RIGHT) / max(1, len(counts))
    x_scale = charts.Scale(low, high, EDGE, SIDE - RIGHT)
    y_scale = charts.Scale(0, most, SIDE - FOOT - 60, 14)
    bottom = y_scale(0)
    parts = [_level(value, y_scale(value), f"{value:,.0f}") for value in charts.ticks(0, most, 4)]
    for place, count in enumerate(counts):
        left = EDGE + place * width
        ends = (low + (high - low) * part / len(counts) for part in (place, place + 1))
        title = f"{' to '.join(f'{end:.4g}' for end in ends)}: {count:,} images"
        top = y_scale(count)
        bar = tag("rect", x=left + 0.5, y=top, width=width - 1, height=bottom - top, class_="column")
        parts.append(tag("g", tag("title", title), bar))
    marks = [tag("text", f"{v:.4g}", x=x_scale(v), y=bottom + 15, class_="tick middle") for v in x_scale.ticks()]
    name = tag("text", label, x=SIDE - RIGHT, y=bottom + 31, class_="title end")
    axis = tag("line", x1=EDGE, x2=SIDE - RIGHT, y1=bottom, y2=bottom, class_="axis")
    return _svg(join(parts, marks, axis, name), summary, SIDE, SIDE - 60)


def _unit_scales() -> tuple[charts.Scale, charts.Scale]:
    return charts.Scale(0, 1, EDGE, SIDE - RIGHT), charts.Scale(0, 1, SIDE - FOOT, 24)


def _unit_frame(x_scale: charts.Scale, y_scale: charts.Scale, x_label: str, y_label: str) -> Markup:
    values = (0, 0.25, 0.5, 0.75, 1)
    levels = [_level(value, y_scale(value), f"{100 * value:g}%") for value in values]
    bottom = SIDE - FOOT
    marks = [tag("text", f"{100 * v:g}%", x=x_scale(v), y=bottom + 15, class_="tick middle") for v in values]
    return join(
        levels,
        marks,
        tag("text", x_label, x=SIDE - RIGHT, y=SIDE - 5, class_="title end"),
        tag("text", y_label, x=2.0, y=11.0, class_="title"),
    )


def _level(value: float, y: float, text: str) -> Markup:
    line = tag("line", x1=EDGE, x2=SIDE - RIGHT, y1=y, y2=y, class_="axis" if value == 0 else "grid")
    return join(line, tag("text", text, x=EDGE - 5, y=y + 4, class_="tick end"))


def _diagonal(x_scale: charts.Scale, y_scale: charts.Scale) -> Markup:
    return tag("line", x1=x_scale(0), y1=y_scale(0), x2=x_scale(1), y2=y_scale(1), class_="diagonal")


def _svg(parts: Markup, summary: str, width: float, height: float) -> Markup:
    view = f"0 0 {width:g} {height:g}"
    return tag("svg", parts, viewbox=view, class_="chart", role="img", aria_label=summary)
