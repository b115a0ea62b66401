"""Pictures of answers: confusion matrices, reliability, ROC curves, histograms.

Every mark has a title; where a picture is all colour, the same numbers stand in its text or beside it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from toolkit.report.charts import stroke
from toolkit.report.drawing import Drawing, colour, drawing
from toolkit.report.markup import Markup

GRID, LETTER = 320, 6.2  # of a matrix: its cells; the room for a letter of a name at its left and foot
NAMED = 20  # most classes whose names stand at a matrix
COUNTED = 12  # most classes whose cells hold their counts
SOLID = 0.75  # shade from which a cell's count is written in the colour of the page
LONGEST_NAME = 11  # characters of a class at a matrix; the cell's title has all
ROLES = {"right": "data", "wrong": "worse", "worse": "worse", "better": "better"}


@dataclass(frozen=True)
class Cell:
    """One cell of a matrix. shade: 0..1. kind: a key of ROLES."""

    row: int
    column: int
    text: str
    title: str
    shade: float
    kind: str


@lru_cache(maxsize=4)  # the original's is drawn beside that of every file
def matrix(cells: tuple[Cell, ...], classes: tuple[str, ...], *, summary: str) -> Markup:
    """Rows are labels, columns decisions, both in the order of the classes."""
    from matplotlib.collections import PatchCollection
    from matplotlib.patches import Rectangle

    size, named = len(classes), len(classes) <= NAMED
    short = [name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…" for name in classes]
    longest = max(map(len, short), default=0)
    edge = 14 + LETTER * longest if named else 18
    foot: dict[str, Any] = {"ha": "right", "rotation": 90} if longest > 2 else {"va": "top"}
    with drawing(GRID + edge + 1, GRID + edge + 1, left=edge, right=1, top=1, bottom=edge) as made:
        made.axes.set(xlim=(0, size), ylim=(size, 0))
        made.axes.set_axis_off()
        made.axes.add_patch(Rectangle((0, 0), size, size, facecolor="none", edgecolor=colour("line"), zorder=2))
        blocks = [Rectangle((cell.column, cell.row), 1, 1) for cell in cells]
        faces = [(colour(ROLES[cell.kind]), round(0.12 + 0.88 * cell.shade, 2)) for cell in cells]
        drawn = PatchCollection(blocks, facecolors=faces, edgecolors=colour("paper"), linewidths=min(1, 32 / size))
        made.tell(made.axes.add_collection(drawn), *(cell.title for cell in cells))
        for cell in cells if size <= COUNTED else ():
            role = "paper" if cell.shade > SOLID else "ink"
            made.text((cell.column + 0.5, cell.row + 0.5), cell.text, color=colour(role))
        for place, name in enumerate(short if named else ()):
            made.text((0, place + 0.5), name, (-6, 0), ha="right")
            made.text((place + 0.5, size), name, (0, -6), **foot)
        if not named:
            made.text((size / 2, size), "decision", (0, -9))
            made.text((0, size / 2), "label", (-9, 0), rotation=90)
        return made.svg(role="img", aria_label=summary)


# ---------------------------------------------------------------- square plots


@contextmanager
def _unit(across: str, up: str) -> Iterator[Drawing]:
    """A square of shares from nothing to all, with its diagonal."""
    from matplotlib.ticker import PercentFormatter

    with drawing(300, 300, left=40, right=18, top=24, bottom=36) as made:
        quarters = (0, 0.25, 0.5, 0.75, 1)
        made.axes.set(xlim=(0, 1), ylim=(0, 1), xticks=quarters, yticks=quarters)
        for axis in (made.axes.xaxis, made.axes.yaxis):
            axis.set_major_formatter(PercentFormatter(1, decimals=0))
        made.axes.plot((0, 1), (0, 1), color=colour("soft"), linewidth=1, linestyle=(0, (3, 4)))
        made.name(across, up)
        yield made


def reliability(lines: Mapping[str, Sequence[tuple[int, float, float]]], *, summary: str) -> Markup:
    """Share right against confidence, one line a model, of (images, confidence, share right) for each bin."""
    with _unit("confidence", "share right") as made:
        for place, (name, bins) in enumerate(lines.items()):
            total = sum(images for images, _, _ in bins) or 1
            full = [each for each in bins if each[0]]
            where = [sure for _, sure, _ in full], [right for _, _, right in full]
            sizes = [(3.6 + 9 * (images / total) ** 0.5) ** 2 for images, _, _ in full]
            made.axes.plot(*where, **stroke(place))
            dots = made.axes.scatter(*where, s=sizes, color=stroke(place)["color"], linewidths=0)
            said = (
                f"{n:,} images at {100 * sure:.0f}% confidence, {100 * right:.0f}% right" for n, sure, right in full
            )
            made.tell(dots, *(f"{name}: {each}" for each in said))
        return made.svg(role="img", aria_label=summary)


def roc(lines: Mapping[str, Sequence[tuple[float, float]]], *, summary: str) -> Markup:
    """True against false positive rate, one line a model or class."""
    with _unit("false positive rate", "true positive rate") as made:
        for place, (name, points) in enumerate(lines.items()):
            (line,) = made.axes.plot(*zip(*points, strict=True), **stroke(place))
            made.tell(line, name)
        return made.svg(role="img", aria_label=summary)


def histogram(counts: Sequence[int], low: float, high: float, *, label: str, summary: str) -> Markup:
    """Bars of equal width from low to high, each named by its own range and count."""
    width = (high - low) / max(1, len(counts))
    with drawing(300, 240, left=40, right=18, top=14, bottom=42) as made:
        ends = [low + width * place for place in range(len(counts) + 1)]
        columns = made.axes.bar(ends[:-1], counts, width, align="edge", color=colour("data"), edgecolor=colour("paper"))
        for column, count, start, end in zip(columns, counts, ends, ends[1:], strict=False):
            made.tell(column, f"{start:.4g} to {end:.4g}: {count:,} images")
        made.axes.set_xlim(low, high)
        made.name(label, "")
        made.ticks("x", "{:.4g}".format, nbins=4)
        made.ticks("y", "{:,.0f}".format, nbins=4, integer=True)
        return made.svg(role="img", aria_label=summary)
