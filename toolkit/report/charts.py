"""Charts as inline SVG: scatter with interval bars, waterfall bars, training curves.

Pure text out, in a coordinate system of its own (`viewBox`); colours come from classes in style.py, so that a chart
follows light and dark. Every mark has a <title>; shape says what colour says. The marks of a scatter can be reached
by keyboard too, and the page's script shows the title of the one that is pointed at, tapped or focused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from toolkit.report.markup import Markup, join, tag

WIDTH, HEIGHT = 440.0, 310.0
LEFT, RIGHT, TOP, BOTTOM = 54.0, 16.0, 38.0, 44.0
LINE = 13.0  # height of a line of text
FAR = (
    4.0  # times the largest value, or below the least: a budget beyond is named at the edge, lest marks crowd together
)
CHARACTER = 6.3  # width of one, about, at the charts' 11 px


@dataclass(frozen=True)
class Scale:
    """Values low..high onto positions start..end, straight or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Position of `value`, held inside start..end."""
        low, high, value = (
            (math.log(x) for x in (self.low, self.high, value)) if self.log else (self.low, self.high, value)
        )
        part = (value - low) / (high - low) if high > low else 0.5
        return self.start + min(1.0, max(0.0, part)) * (self.end - self.start)

    def ticks(self) -> tuple[float, ...]:
        """Round values within low..high."""
        return decades(self.low, self.high) if self.log else ticks(self.low, self.high)


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


def ticks(low: float, high: float, count: int = 5) -> tuple[float, ...]:
    """About `count` round values (1, 2 or 5 times a power of ten) within low..high."""
    if not high > low:
        return (low,)
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(step for step in (power, 2 * power, 5 * power, 10 * power) if step >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return tuple(float(f"{place * step:.12g}") for place in range(first, last + 1))


def decades(low: float, high: float) -> tuple[float, ...]:
    """1, 2 and 5 times powers of ten within low..high; only the powers where those are many."""
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    steps = (1, 2, 5) if len(exponents) <= 4 else (1,)
    values = (float(f"{step}e{exponent}") for exponent in exponents for step in steps)
    return tuple(value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9))


def span(
    values: Sequence[float], *, floor: float, ceiling: float = math.inf, least: float = 0.0
) -> tuple[float, float]:
    """A range around `values`: 8% of air on both sides, `least` wide, within floor..ceiling."""
    low, high = min(values), max(values)
    air = max(0.08 * (high - low), (least - (high - low)) / 2, 1e-12)
    return max(floor, low - air), min(ceiling, high + air)


# ---------------------------------------------------------------- scatter


def scatter(points: Sequence[Point], x_axis: Axis, y_axis: Axis, *, summary: str) -> Markup:
    """Points with interval bars; `summary` is the text for those who do not see it."""
    x_scale, y_scale = _x_scale(points, x_axis), _y_scale(points, y_axis)
    bars = [_bars(point, x_scale, y_scale) for point in points]
    marks = [_mark(point, x_scale, y_scale) for point in sorted(points, key=lambda point: point.x[0])]
    parts = join(
        _frame(x_scale, y_scale, x_axis, y_axis),
        _limits(x_scale, y_scale, x_axis, y_axis),
        _stairs(points, x_scale, y_scale),
        bars,
        marks,
        _labels(points, x_scale, y_scale, _limit_boxes(x_scale, y_scale, x_axis, y_axis)),
    )
    return _svg(parts, summary, WIDTH, HEIGHT, role="group")  # an img would hide its marks from a keyboard


def frontier(places: Sequence[tuple[float, float]], *, higher: bool) -> list[bool]:
    """Of (cost, score): whether no other is as good in both and better in one. higher: whether a high score is good."""

    def beaten(cost: float, score: float) -> bool:
        return any(
            other <= cost and (theirs >= score if higher else theirs <= score) and (other, theirs) != (cost, score)
            for other, theirs in places
        )

    return [not beaten(cost, score) for cost, score in places]


def _stairs(points: Sequence[Point], x_scale: Scale, y_scale: Scale) -> Markup | None:
    """The frontier's line: at each cost, the best score that can be had for it."""
    best = sorted((x_scale(point.x[0]), y_scale(point.y[0])) for point in points if point.best)
    if len(best) < 2:
        return None
    (x, y), *others = best
    path = f"M{x:.1f} {y:.1f}" + "".join(f"H{x:.1f}V{y:.1f}" for x, y in others)
    return tag("path", d=path, class_="frontier")


def _x_scale(points: Sequence[Point], axis: Axis) -> Scale:
    values = [end for point in points for end in point.x]
    if axis.limit and min(values) / FAR <= axis.limit[0] <= max(values) * FAR:
        values.append(axis.limit[0])
    positive = [value for value in values if value > 0]
    start, end = LEFT, WIDTH - RIGHT
    if len(positive) == len(values) and max(values) / min(values) >= 8:
        return Scale(min(values) / 1.5, max(values) * 1.5, start, end, log=True)
    return Scale(0.0, (max(values) * 1.12) or 1.0, start, end)


def _y_scale(points: Sequence[Point], axis: Axis) -> Scale:
    values = [end for point in points for end in point.y] + ([axis.limit[0]] if axis.limit else [])
    least = 0.02 * min(1.0, abs(max(values)) or 1.0)
    low, high = span(values, floor=min(0.0, *values), ceiling=axis.ceiling, least=least)
    return Scale(low, high, HEIGHT - BOTTOM, TOP)


def _frame(x_scale: Scale, y_scale: Scale, x_axis: Axis, y_axis: Axis) -> Markup:
    rows = [
        (
            tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y_scale(value), y2=y_scale(value), class_="grid"),
            tag("text", y_axis.show(value), x=LEFT - 7, y=y_scale(value) + 4, class_="tick end"),
        )
        for value in y_scale.ticks()
    ]
    bottom = HEIGHT - BOTTOM
    columns = [
        (
            tag("line", x1=x_scale(value), x2=x_scale(value), y1=bottom, y2=bottom + 4, class_="axis"),
            tag("text", x_axis.show(value), x=x_scale(value), y=bottom + 17, class_="tick middle"),
        )
        for value in x_scale.ticks()
    ]
    return join(
        (cell for row in rows for cell in row),
        tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=bottom, y2=bottom, class_="axis"),
        (cell for column in columns for cell in column),
        tag("text", x_axis.label, x=WIDTH - RIGHT, y=HEIGHT - 8, class_="title end"),
        tag("text", y_axis.label, x=2.0, y=11.0, class_="title"),
    )


Box = tuple[float, float, float, float]  # left, top, right, bottom


def _limits(x_scale: Scale, y_scale: Scale, x_axis: Axis, y_axis: Axis) -> Markup:
    """The budget's lines; their names lie at the top of the upright one and under the level one, at its right end."""
    parts: list[Markup] = []
    if x_axis.limit:
        x, text = x_scale(x_axis.limit[0]), _limit_text(x_scale, x_axis.limit)
        if x_scale.low <= x_axis.limit[0] <= x_scale.high:
            parts.append(tag("line", x1=x, x2=x, y1=TOP - 4, y2=HEIGHT - BOTTOM, class_="limit"))
        left = x > WIDTH / 2
        side = {"x": x - 5 if left else x + 5, "class_": "limit end" if left else "limit"}
        parts.append(tag("text", text, y=TOP - 8, **side))
    if y_axis.limit:
        y = y_scale(y_axis.limit[0])
        parts.append(tag("line", x1=LEFT, x2=WIDTH - RIGHT, y1=y, y2=y, class_="limit"))
        parts.append(tag("text", y_axis.limit[1], x=WIDTH - RIGHT, y=y + LINE, class_="limit end"))
    return join(parts)


def _limit_text(scale: Scale, limit: tuple[float, str]) -> str:
    """A limit's name; with an arrow where it lies outside the picture."""
    value, name = limit
    return f"{name} →" if value > scale.high else f"← {name}" if value < scale.low else name


def _limit_boxes(x_scale: Scale, y_scale: Scale, x_axis: Axis, y_axis: Axis) -> list[Box]:
    """Where the names of the limits lie."""
    boxes: list[Box] = []
    if x_axis.limit:
        x, width = x_scale(x_axis.limit[0]), CHARACTER * (len(x_axis.limit[1]) + 2) + 5
        left = x - width if x > WIDTH / 2 else x
        boxes.append((left, TOP - 20, left + width, TOP - 4))
    if y_axis.limit:
        y, right = y_scale(y_axis.limit[0]), WIDTH - RIGHT
        boxes.append((right - CHARACTER * len(y_axis.limit[1]), y + 1, right, y + LINE + 4))
    return boxes


def _bars(point: Point, x_scale: Scale, y_scale: Scale) -> Markup:
    (x, left, right), (y, bottom, top) = (tuple(map(x_scale, point.x)), tuple(map(y_scale, point.y)))
    vertical = f"M{x - 4:.1f} {bottom:.1f}h8m-4 0V{top:.1f}m-4 0h8"
    across = f"M{left:.1f} {y - 4:.1f}v8m0 -4H{right:.1f}m0 -4v8"
    return join(
        tag("path", d=vertical, class_=f"bar {point.shape}") if bottom - top > 1 else None,
        tag("path", d=across, class_=f"bar {point.shape}") if right - left > 1 else None,
    )


MARKS: dict[str, str] = {
    "original": "M0 -6.5L6.5 0L0 6.5L-6.5 0Z",  # diamond
    "pass": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0Z",  # disc
    "inconclusive": "M0 -6L6 5H-6Z",  # triangle
    "fail": "M-5 -5H5V5H-5Z",  # square
    "none": "M-5 0a5 5 0 1 0 10 0a5 5 0 1 0 -10 0Z",  # ring
}


def mark(shape: str, x: float, y: float, title: str = "", *, best: bool = False) -> Markup:
    """One mark of the scatter, also used by its legend; what has a title can be pointed at, tapped and focused."""
    ring = tag("circle", r=10.0, class_="halo") if best else None
    touched = tag("circle", r=14.0, class_="touch") if title else None  # as large as a fingertip
    children = join(touched, ring, tag("path", d=MARKS[shape]), tag("title", title) if title else None)
    said: dict[str, str] = {"role": "img", "tabindex": "0", "aria_label": title} if title else {}
    return tag("g", children, transform=f"translate({x:.1f} {y:.1f})", class_=f"mark {shape}", **said)


def legend_mark(shape: str) -> Markup:
    """A mark alone, for text."""
    return tag("svg", mark(shape, 8, 8), viewbox="0 0 16 16", class_="key", aria_hidden="true")


def frontier_key() -> Markup:
    """The frontier's stroke and ring, for a legend."""
    parts = (
        tag("line", x1=0.0, x2=30.0, y1=8.0, y2=8.0, class_="frontier"),
        tag("circle", cx=15.0, cy=8.0, r=6.5, class_="halo"),
    )
    return tag("svg", parts, viewbox="0 0 30 16", class_="rung", aria_hidden="true")


def _mark(point: Point, x_scale: Scale, y_scale: Scale) -> Markup:
    return mark(point.shape, x_scale(point.x[0]), y_scale(point.y[0]), point.title, best=point.best)


def _labels(points: Sequence[Point], x_scale: Scale, y_scale: Scale, taken: Sequence[Box]) -> Markup:
    """Names beside their marks, where they cover neither a mark nor another name; far ones on a leader.

    One that finds no place is left to the mark's own title.
    """
    taken = [*taken, *(_box(x_scale(point.x[0]), y_scale(point.y[0]), 14, 14) for point in points)]
    for point in points:
        x, low, high = x_scale(point.x[0]), y_scale(point.y[1]), y_scale(point.y[2])
        taken.append(_box(x, (low + high) / 2, 9, low - high))
    parts: list[Markup] = []
    for point in sorted(points, key=lambda point: point.shape == "original"):
        text = point.label if len(point.label) <= 24 else point.label[:23] + "…"
        width = CHARACTER * len(text)
        places = _places(point, x_scale, y_scale, width)
        free = (place for place in places if not any(_overlap(_box(*place, width, LINE), box) for box in taken))
        at = next(free, None)
        if at is None:
            continue
        taken.append(_box(*at, width, LINE))
        parts.append(_leader(at, width, (x_scale(point.x[0]), y_scale(point.y[0]))))
        parts.append(tag("text", text, x=at[0], y=at[1] + 4, class_=f"label middle {point.shape}"))
    return join(parts)


Place = tuple[float, float]


def _places(point: Point, x_scale: Scale, y_scale: Scale, width: float) -> list[Place]:
    """Where a name may stand, the best first: beside its mark, over or under its bar, then farther off."""
    x, y = x_scale(point.x[0]), y_scale(point.y[0])
    sides = (1, -1) if x < WIDTH * 0.6 else (-1, 1)
    beside = [(x + side * (11 + width / 2), y) for side in sides]
    over = [(x, y_scale(point.y[2]) - 9), (x, y_scale(point.y[1]) + 9)]
    far = [
        (x + side * (11 + width / 2), y + shift)
        for shift in (-14.0, 14.0, -27.0, 27.0, 40.0, 53.0, 66.0, -40.0, 80.0, 94.0, 108.0, 122.0, 136.0)
        for side in sides
    ]
    return [place for place in (*beside, *over, *far) if _inside(place, width)] or beside


def _leader(at: Place, width: float, origin: Place) -> Markup:
    """A line from the mark to a name too far off to be read as its own."""
    if abs(at[1] - origin[1]) <= 14 or at[0] == origin[0]:
        return Markup("")
    edge = at[0] - math.copysign(width / 2, at[0] - origin[0])
    return tag("line", x1=origin[0], y1=origin[1], x2=edge, y2=at[1], class_="leader")


def _inside(place: Place, width: float) -> bool:
    x, y = place
    return x - width / 2 >= LEFT and x + width / 2 <= WIDTH and TOP - 18 <= y <= HEIGHT - BOTTOM - 4


def _box(x: float, y: float, width: float, height: float) -> Box:
    return x - width / 2, y - height / 2, x + width / 2, y + height / 2


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


# ---------------------------------------------------------------- waterfall


BAR_WIDTH, BAR_HEIGHT = 132.0, 16.0


def waterfall_bar(scale: Scale, value: float | None, before: float | None, *, better: bool | None) -> Markup:
    """One row of a waterfall: a bar from `before` to `value`, a tick at the value. better: None for no change."""
    parts = [tag("line", x1=scale.start, x2=scale.end, y1=BAR_HEIGHT - 2, y2=BAR_HEIGHT - 2, class_="rail")]
    if value is not None:
        x = scale(value)
        if before is not None:
            start = scale(before)
            kind = {True: "better", False: "worse", None: "same"}[better]
            left, width = min(x, start), abs(x - start)
            parts.append(tag("rect", x=left, y=4.0, width=width, height=7.0, class_=f"step {kind}"))
            parts.append(tag("line", x1=start, x2=start, y1=2.0, y2=BAR_HEIGHT - 2, class_="from"))
        parts.append(tag("line", x1=x, x2=x, y1=1.0, y2=BAR_HEIGHT - 1, class_="value"))
    return tag("svg", parts, viewbox=f"0 0 {BAR_WIDTH:g} {BAR_HEIGHT:g}", class_="fall", aria_hidden="true")


# ---------------------------------------------------------------- curves


CURVE_WIDTH, CURVE_HEIGHT = 300.0, 170.0
CURVE_STYLES = 8  # colours and dashes of the page's style: a loss has up to 6 parts


def curves(lines: Mapping[str, Sequence[float]], *, title: str, show: Callable[[float], str]) -> Markup:
    """Values per epoch, one line each, named at its end by the caller's legend; NaN breaks a line."""
    finite = [value for line in lines.values() for value in line if math.isfinite(value)]
    if not finite:
        return tag("p", f"{title}: no finite value to draw.", class_="quiet")
    longest = max(len(line) for line in lines.values())
    low, high = span(finite, floor=-math.inf, least=1e-6 * max(1.0, abs(max(finite))))
    y_scale = Scale(low, high, CURVE_HEIGHT - 26, 10.0)
    x_scale = Scale(1, max(longest, 2), 50.0, CURVE_WIDTH - 10)
    parts: list[Markup] = []
    for value in ticks(low, high, 4):
        y = y_scale(value)
        parts.append(tag("line", x1=50.0, x2=CURVE_WIDTH - 10, y1=y, y2=y, class_="grid"))
        parts.append(tag("text", show(value), x=44.0, y=y + 4, class_="tick end"))
    whole = [value for value in ticks(1, max(longest, 2), 5) if value == int(value)]
    parts += [tag("text", f"{v:g}", x=x_scale(v), y=CURVE_HEIGHT - 9, class_="tick middle") for v in whole]
    parts += [_curve(line, x_scale, y_scale, place) for place, line in enumerate(lines.values())]
    return _svg(join(parts), f"{title} for each epoch: " + _ends(lines, show), CURVE_WIDTH, CURVE_HEIGHT)


def _curve(line: Sequence[float], x_scale: Scale, y_scale: Scale, place: int) -> Markup:
    path, pen = "", "M"
    last = None
    for epoch, value in enumerate(line, start=1):
        if not math.isfinite(value):
            pen = "M"
            continue
        path += f"{pen}{x_scale(epoch):.1f} {y_scale(value):.1f}"
        pen, last = "L", (x_scale(epoch), y_scale(value))
    style = f"curve c{place % CURVE_STYLES}"
    dot = tag("circle", cx=last[0], cy=last[1], r=2.6, class_=f"dot c{place % CURVE_STYLES}") if last else None
    return join(tag("path", d=path, class_=style) if path else None, dot)


def curve_key(place: int) -> Markup:
    """The stroke of line number `place`, for a legend."""
    line = tag("line", x1=0.0, x2=22.0, y1=5.0, y2=5.0, class_=f"curve c{place % CURVE_STYLES}")
    return tag("svg", line, viewbox="0 0 22 10", class_="stroke", aria_hidden="true")


def _ends(lines: Mapping[str, Sequence[float]], show: Callable[[float], str]) -> str:
    said = []
    for name, line in lines.items():
        finite = [value for value in line if math.isfinite(value)]
        said.append(f"{name} from {show(finite[0])} to {show(finite[-1])}" if finite else f"{name} not measured")
    return "; ".join(said) + "."


def _svg(parts: Markup, summary: str, width: float, height: float, *, role: str = "img") -> Markup:
    view = f"0 0 {width:g} {height:g}"
    return tag("svg", parts, viewbox=view, class_="chart", role=role, aria_label=summary)
