"""Charts: score against cost with interval bars and the frontier, curves of training, and the keys of their legends.

Every mark has a title; shape says what colour says. The marks of a scatter can be reached by keyboard too, and the
page's script shows the title of the one that is pointed at, tapped or focused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from toolkit.report.bars import span
from toolkit.report.drawing import Drawing, colour, drawing
from toolkit.report.markup import Markup, tag

if TYPE_CHECKING:
    from matplotlib.transforms import Bbox

FAR = (
    4.0  # times the largest value, or below the least: a budget beyond is named at the edge, lest marks crowd together
)
MARKS: dict[str, tuple[str, float, str, str, str]] = {  # matplotlib's marker, its size, colours: face, edge, interval
    "original": ("D", 9.2, "ink", "paper", "soft"),
    "pass": ("o", 10.0, "pass", "paper", "pass"),
    "inconclusive": ("^", 11.5, "unsure", "paper", "unsure"),
    "fail": ("s", 10.0, "fail", "paper", "fail"),
    "none": ("o", 10.0, "paper", "soft", "soft"),
}
FRONTIER: dict[str, Any] = {"color": colour("data"), "linewidth": 1.6, "alpha": 0.75}
TOUCH, HALO = 28.0, 20.0  # across: as large as a fingertip; the frontier's ring
STROKES: tuple[tuple[str, tuple[float, ...]], ...] = (  # colours and dashes of lines: a loss has up to 6 parts
    *(("c0", ()), ("c1", (6, 3)), ("c2", (2, 2)), ("c3", (8, 3, 2, 3))),
    *(("c0", (1, 4)), ("c1", ()), ("c2", (6, 3)), ("c3", ())),
)


@dataclass(frozen=True)
class Point:
    """One mark. x, y: (value, low, high), all equal where there is no interval. shape: a key of MARKS.

    best: it lies on the frontier.
    """

    label: str
    x: tuple[float, float, float]
    y: tuple[float, float, float]
    shape: str
    title: str
    best: bool = False


@dataclass(frozen=True)
class Axis:
    """How an axis reads. limit: a budget's line and its label, or None. ceiling: the most a value can be."""

    label: str
    show: Callable[[float], str]
    limit: tuple[float, str] | None = None
    ceiling: float = 1.0


# ---------------------------------------------------------------- scatter


def scatter(points: Sequence[Point], x_axis: Axis, y_axis: Axis, *, summary: str) -> Markup:
    """Points with interval bars; `summary` is the text for those who do not see it."""
    with drawing(400, 300, left=50, right=14, top=38, bottom=40) as made:
        made.name(x_axis.label, y_axis.label)
        _scales(made, points, x_axis, y_axis)
        taken = _limits(made, x_axis, y_axis)
        best = sorted((point.x[0], point.y[0]) for point in points if point.best)
        if len(best) > 1:  # at each cost, the best score that can be had for it
            (line,) = made.axes.step(*zip(*best, strict=True), where="post", **FRONTIER)
            made.tell(line, class_="frontier")
        for point in points:
            _bars(made, point)
        for point in sorted(points, key=lambda point: point.x[0]):
            mark(made, point.x[0], point.y[0], point.shape, title=point.title, best=point.best)
        _labels(made, points, taken)
        return made.svg(role="group", aria_label=summary)  # an img would hide its marks from a keyboard


def frontier(places: Sequence[tuple[float, float]], *, higher: bool) -> list[bool]:
    """Of (cost, score): whether no other is as good in both and better in one. higher: whether a high score is good."""

    def beaten(cost: float, score: float) -> bool:
        return any(
            other <= cost and (theirs >= score if higher else theirs <= score) and (other, theirs) != (cost, score)
            for other, theirs in places
        )

    return [not beaten(cost, score) for cost, score in places]


def _scales(made: Drawing, points: Sequence[Point], x_axis: Axis, y_axis: Axis) -> None:
    """The score's from a little below the least; the cost's from nothing, or logarithmic where values lie far apart."""
    values = [end for point in points for end in point.y] + ([y_axis.limit[0]] if y_axis.limit else [])
    least = 0.02 * min(1.0, abs(max(values)) or 1.0)
    made.axes.set_ylim(*span(values, floor=min(0.0, *values), ceiling=y_axis.ceiling, least=least))
    made.ticks("y", y_axis.show)
    values = [end for point in points for end in point.x]
    if x_axis.limit and min(values) / FAR <= x_axis.limit[0] <= max(values) * FAR:
        values.append(x_axis.limit[0])
    if min(values) > 0 and max(values) / min(values) >= 8:
        made.axes.set(xscale="log", xlim=(min(values) / 1.5, max(values) * 1.5))
        made.ticks("x", x_axis.show, subs=(1, 2, 5) if max(values) / min(values) < 1e3 else (1,))
    else:
        made.axes.set_xlim(0, max(values) * 1.12 or 1.0)
        made.ticks("x", x_axis.show)


def _limits(made: Drawing, x_axis: Axis, y_axis: Axis) -> list[Bbox]:
    """The budget's lines, and where their names lie: over the upright one, under the level one at its right end."""
    axes, names = made.axes, []
    line: dict[str, Any] = {"color": colour("ink"), "linewidth": 1, "linestyle": (0, (4, 4)), "alpha": 0.55}
    if x_axis.limit:
        (value, name), (low, high) = x_axis.limit, axes.get_xlim()
        at = min(max(value, low), high)
        if at == value:
            made.tell(axes.axvline(value, **line), class_="limit")
        name = f"{name} →" if value > high else f"← {name}" if value < low else name
        right = axes.transData.transform((at, axes.get_ylim()[0]))[0] > made.size[0] / 2
        names.append(
            made.text((at, axes.get_ylim()[1]), name, (-5 if right else 5, 12), ha="right" if right else "left")
        )
    if y_axis.limit:
        made.tell(axes.axhline(y_axis.limit[0], **line), class_="limit")
        names.append(made.text((axes.get_xlim()[1], y_axis.limit[0]), y_axis.limit[1], (0, -8), ha="right"))
    for text in names:
        text.set_color(colour("ink"))
        made.tell(text, class_="limit")
    return [text.get_window_extent() for text in names]


def _bars(made: Drawing, point: Point) -> None:
    (x, *across), (y, *up) = point.x, point.y
    look: dict[str, Any] = {"color": colour(MARKS[point.shape][4]), "linewidth": 1.3, "fillstyle": "none"}
    for xs, ys, cap in (([x, x], up, "_"), (across, [y, y], "|")):
        if xs[0] < xs[1] or ys[0] < ys[1]:
            (bar,) = made.axes.plot(xs, ys, marker=cap, markersize=8, markeredgewidth=1.3, **look)
            made.tell(bar, class_="bar")


def mark(made: Drawing, x: float, y: float, shape: str, *, title: str = "", best: bool = False) -> None:
    """One mark of the scatter, also used by its legend; what has a title can be pointed at, tapped and focused."""
    from matplotlib.markers import MarkerStyle
    from matplotlib.path import Path

    kind, size, face, edge, _ = MARKS[shape]
    disc = MarkerStyle(Path.arc(0, 360, n=4))  # half as long as matplotlib's own
    rows = [
        (disc if kind == "o" else MarkerStyle(kind), size, colour(face), colour(edge), 2.0 if shape == "none" else 1.0)
    ]
    rows[:0] = [(disc, HALO, "none", colour("data"), 1.6)] if best else []
    rows[:0] = [(disc, TOUCH, colour("glow"), colour("ring"), 1.0)] if title else []
    styles, sizes, faces, edges, widths = zip(*rows, strict=True)
    at: dict[str, Any] = {"x": [x] * len(rows), "y": [y] * len(rows), "s": [size**2 for size in sizes]}
    drawn = made.axes.scatter(**at, facecolors=faces, edgecolors=edges, linewidths=widths, zorder=3)
    drawn.set_paths([style.get_path().transformed(style.get_transform()) for style in styles])
    said = {"role": "img", "tabindex": "0", "aria_label": title} if title else {}
    made.tell(drawn, *filter(None, [title]), class_=f"mark {shape}", **said)


def _labels(made: Drawing, points: Sequence[Point], taken: list[Bbox]) -> None:
    """Names beside their marks, where they cover neither a mark nor another name; far ones on a leader.

    One that finds no place is left to the mark's own title.
    """
    from matplotlib.transforms import Bbox

    place, inner = made.axes.transData.transform, made.axes.bbox
    frame = Bbox.from_extents(inner.x0, inner.y0, made.size[0], inner.y1 + 18)
    for point in points:
        at, *ends = place([(point.x[0], end) for end in point.y])
        taken += [Bbox([at, at]).padded(HALO / 2 if point.best else 7), Bbox(ends).padded(4.5, 0)]
    line = {"arrowstyle": "-", "linewidth": 0.8, "color": colour("soft"), "shrinkA": 0, "shrinkB": 0}
    for point in sorted(points, key=lambda point: point.shape == "original"):
        name = point.label if len(point.label) <= 24 else point.label[:23] + "…"
        look: dict[str, Any] = {"color": colour("ink"), "fontsize": 11.5}
        trial = made.text((point.x[0], point.y[0]), name, **look)
        box = trial.get_window_extent()
        trial.remove()
        for shift in _places(made, point, box.width):
            moved = box.translated(*shift)
            if frame.count_contains(moved.corners()) == 4 and not moved.count_overlaps(taken):
                taken.append(moved)
                leader = line | {"relpos": (shift[0] < 0, 0.5)} if abs(shift[1]) > 14 and shift[0] else None
                label = made.text((point.x[0], point.y[0]), name, shift, arrowprops=leader, **look)
                made.tell(label, class_="label")
                break


def _places(made: Drawing, point: Point, width: float) -> list[tuple[float, float]]:
    """Where a name may stand about its mark, the best first: beside, over or under its bar, then farther off."""
    (x, y), (_, low), (_, high) = made.axes.transData.transform([(point.x[0], end) for end in point.y])
    beside = ((12 if point.best else 9) + width / 2) * (1 if x < made.size[0] * 0.6 else -1)
    far = (14, -14, 27, -27, -40, -53, -66, 40, -80, -94, -108, -122, -136)
    aside = [(side, up) for up in (0, *far) for side in (beside, -beside)]
    return [*aside[:2], (0, high - y + 9), (0, low - y - 9), *aside[2:]]


# ---------------------------------------------------------------- curves


def curves(lines: Mapping[str, Sequence[float]], *, title: str, show: Callable[[float], str]) -> Markup:
    """Values per epoch, one line each, named by the caller's legend; NaN breaks a line."""
    finite = [value for line in lines.values() for value in line if math.isfinite(value)]
    if not finite:
        return tag("p", f"{title}: no finite value to draw.", class_="quiet")
    with drawing(300, 170, left=50, right=10, top=10, bottom=26) as made:
        for place, line in enumerate(lines.values()):
            last = [epoch for epoch, value in enumerate(line) if math.isfinite(value)][-1:]
            look = {"marker": "o", "markersize": 5, "markevery": last, **stroke(place)}
            made.axes.plot(range(1, len(line) + 1), line, **look)
        made.axes.set_xlim(1, max(2, *map(len, lines.values())))
        least = 1e-6 * max(1.0, abs(max(finite)))
        made.axes.set_ylim(*span(finite, floor=-math.inf, ceiling=math.inf, least=least))
        made.ticks("x", "{:g}".format, integer=True)
        made.ticks("y", show, nbins=4)
        return made.svg(role="img", aria_label=f"{title} for each epoch: {_ends(lines, show)}")


def _ends(lines: Mapping[str, Sequence[float]], show: Callable[[float], str]) -> str:
    said = []
    for name, line in lines.items():
        finite = [value for value in line if math.isfinite(value)]
        said.append(f"{name} from {show(finite[0])} to {show(finite[-1])}" if finite else f"{name} not measured")
    return "; ".join(said) + "."


def stroke(place: int) -> dict[str, Any]:
    """How line number `place` is drawn."""
    role, dashes = STROKES[place % len(STROKES)]
    return {"color": colour(role), "linestyle": (0, dashes) if dashes else "-", "markeredgewidth": 0}


# ---------------------------------------------------------------- keys of legends


@cache
def key(what: str | int) -> Markup:
    """For a legend: a mark by its shape, the frontier, or the stroke of a line by its number."""
    with drawing(16 if what in MARKS else 30, 16) as made:
        made.axes.set(xlim=(0, 1), ylim=(0, 1))
        made.axes.set_axis_off()
        if what in MARKS:
            mark(made, 0.5, 0.5, str(what))
        else:
            made.axes.plot((0, 1), (0.5, 0.5), **(stroke(what) if isinstance(what, int) else FRONTIER))
        if what == "frontier":
            made.axes.plot(0.5, 0.5, marker="o", markersize=13, fillstyle="none", **FRONTIER)
        return made.svg(class_="key", aria_hidden="true")
