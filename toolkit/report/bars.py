"""Bars in the cells of the waterfall: parts of a table, too small and too many to be pictures of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from toolkit.report.markup import Markup, tag

WIDTH, HEIGHT = 132.0, 16.0


@dataclass(frozen=True)
class Scale:
    """Values low..high onto the width of a bar."""

    low: float
    high: float

    def __call__(self, value: float) -> float:
        """Position of `value`, held inside."""
        part = (value - self.low) / (self.high - self.low) if self.high > self.low else 0.5
        return 2 + min(1.0, max(0.0, part)) * (WIDTH - 4)


def span(values: Sequence[float], *, floor: float, ceiling: float, least: float) -> tuple[float, float]:
    """A range around `values`: 8% of air on both sides, `least` wide, within floor..ceiling."""
    low, high = min(values), max(values)
    air = max(0.08 * (high - low), (least - (high - low)) / 2, 1e-12)
    return max(floor, low - air), min(ceiling, high + air)


def bar(scale: Scale, value: float | None, before: float | None, *, better: bool | None) -> Markup:
    """One row of a waterfall: a bar from `before` to `value`, a tick at the value. better: None for no change."""
    parts = [tag("line", x1=2.0, x2=WIDTH - 2, y1=HEIGHT - 2, y2=HEIGHT - 2, class_="rail")]
    if value is not None:
        x = scale(value)
        if before is not None:
            start = scale(before)
            kind = {True: "better", False: "worse", None: "same"}[better]
            left, width = min(x, start), abs(x - start)
            parts.append(tag("rect", x=left, y=4.0, width=width, height=7.0, class_=f"step {kind}"))
            parts.append(tag("line", x1=start, x2=start, y1=2.0, y2=HEIGHT - 2, class_="from"))
        parts.append(tag("line", x1=x, x2=x, y1=1.0, y2=HEIGHT - 1, class_="value"))
    return tag("svg", parts, viewbox=f"0 0 {WIDTH:g} {HEIGHT:g}", class_="fall", aria_hidden="true")
