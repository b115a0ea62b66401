"""Pictures drawn by matplotlib, as inline SVG that follows the page's colours, light and dark.

matplotlib draws in colours that stand for the page's (`colour`), and in groups whose title is told (`Drawing.tell`). Of
its SVG the shapes and texts are kept: no ids, styles, clips or metadata, so that any number of pictures fit one page.
"""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal
from xml.etree import ElementTree

from toolkit.report.markup import Markup, join, printable, tag

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.text import Annotation

ROLES = (  # the page's custom properties, style.py
    *("ink", "soft", "line", "hair", "paper", "data", "pass", "fail", "unsure", "better", "worse", "glow", "ring"),
    *("c0", "c1", "c2", "c3"),
)
STYLED = re.compile(' style="([^"]*)"')
SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"


def colour(role: str) -> str:
    """The colour that stands for the page's `--role` while matplotlib draws."""
    return f"#fe{ROLES.index(role):02x}01"


SOFT, FLAT = colour("soft"), ("axes.spines.left", "axes.spines.right", "axes.spines.top", "text.parse_math")
LOOK: dict[str, Any] = dict.fromkeys(FLAT, False) | {
    "svg.fonttype": "none",  # text as text
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, and is wider than most: what it leaves room for, fits
    "font.size": 11.0,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": SOFT,
    "text.color": SOFT,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "ytick.major.size": 0.0,
    "xaxis.labellocation": "right",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": colour("hair"),
    "lines.linewidth": 1.8,
    "lines.scale_dashes": False,
    "lines.solid_capstyle": "butt",
}


class Drawing:
    """One picture in the making: matplotlib's `axes`, a unit a pixel, and what is told of its marks."""

    def __init__(self, width: float, height: float, edges: tuple[float, float, float, float]) -> None:
        from matplotlib.figure import Figure

        left, right, top, bottom = edges
        self.figure = Figure(figsize=(width / 72, height / 72), dpi=72, frameon=False)
        inner = (left / width, bottom / height, (width - left - right) / width, (height - top - bottom) / height)
        self.axes = self.figure.add_axes(inner)
        self.axes.patch.set_visible(False)
        self.size = width, height
        self._told: dict[str, tuple[Sequence[str], dict[str, Any]]] = {}

    def tell(self, artist: Artist, *titles: str, **attributes: str) -> None:
        """Puts `artist` into a group of its own with this title and these attributes; of many, each of its shapes."""
        key = f"told-{len(self._told)}"
        artist.set_gid(key)
        self._told[key] = titles, attributes

    def text(self, at: tuple[float, float], text: str, shift: tuple[float, float] = (0, 0), **how: Any) -> Annotation:
        """A text in the middle of, or so many pixels off, a place on the axes."""
        how = {"ha": "center", "va": "center_baseline", "rotation_mode": "anchor", **how}
        return self.axes.annotate(printable(text), at, xytext=shift, textcoords="offset points", **how)

    def name(self, across: str, up: str) -> None:
        """Names the axes: one under its right end, one over the picture's left edge."""
        self.axes.set_xlabel(printable(across))
        self.figure.text(2 / self.size[0], 1 - 1 / self.size[1], printable(up), va="top")

    def ticks(self, axis: Literal["x", "y"], show: Callable[[float], str], **how: Any) -> None:
        """Few round values at an axis, as `show` writes them. how: of matplotlib's locator."""
        linear = getattr(self.axes, f"get_{axis}scale")() == "linear"
        self.axes.locator_params(axis, **({"nbins": 5, "steps": [1, 2, 5, 10]} | how if linear else how))
        self.axes.minorticks_off()
        getattr(self.axes, f"{axis}axis").set_major_formatter(lambda value, _: show(value))

    def svg(self, *, class_: str = "chart", **attributes: str) -> Markup:
        """What was drawn."""
        raw = io.StringIO()
        self.figure.savefig(raw, format="svg")
        root = ElementTree.fromstring(raw.getvalue())
        shapes = {f"#{node.get('id')}": node for node in root.iter(f"{SVG}path")}
        kept = (self._kept(child, shapes) for child in root)
        return tag("svg", kept, viewbox="0 0 {:g} {:g}".format(*self.size), class_=class_, **attributes)

    def _kept(self, node: ElementTree.Element, shapes: Mapping[str, ElementTree.Element]) -> Markup:
        """A node as the page has it: a use becomes the shape it names, a group of which nothing is told its content."""
        kind, source, place = node.tag.removeprefix(SVG), node, node.get("transform", "")
        if kind == "use":
            kind, source, place = "path", shapes[node.get(HREF, "")], f"translate({node.get('x')} {node.get('y')})"
        if kind in ("path", "text"):
            at = {key: _short(value) for key, value in source.items() if key in ("d", "x", "y")}
            turned = None if "(-0 " in place else _short(place) or None
            return tag(kind, node.text, **at, transform=turned, style=_style(node))
        return self._group(node, shapes) if kind == "g" else Markup("")

    def _group(self, node: ElementTree.Element, shapes: Mapping[str, ElementTree.Element]) -> Markup:
        inside = [each for each in (self._kept(child, shapes) for child in node) if each]
        titles, attributes = self._told.get(node.get("id", ""), ((), {}))
        if len(titles) > 1:
            pairs = zip(titles, inside, strict=True)
            return join(tag("g", tag("title", title), shape, **attributes) for title, shape in pairs)
        if not titles and not attributes:
            return join(inside)
        whole = join(inside)
        if len(styles := set(STYLED.findall(whole))) == 1:  # said once, for all of the group
            attributes, whole = attributes | {"style": Markup(*styles)}, Markup(STYLED.sub("", whole))
        return tag("g", (tag("title", title) for title in titles), whole, **attributes)


def _style(node: ElementTree.Element) -> str:
    """A node's style in the page's colours; font and joins are the page's own."""
    style = re.sub(r"(font-(family|size)|stroke-(dashoffset|linejoin|linecap)):[^;]*;? ?", "", node.get("style", ""))
    style = re.sub("([:;]) ", r"\1", style).replace("fill-opacity:0;", "fill:none;")
    return re.sub("#fe(..)01", lambda found: f"var(--{ROLES[int(found[1], 16)]})", style)


def _short(text: str) -> str:
    """Coordinates to a tenth of a pixel, in one line."""
    rounded = re.sub(r"-?\d+\.\d+", lambda found: f"{float(found[0]):.1f}".removesuffix(".0"), text)
    return re.sub(r"\s*([A-Za-z])\s+", r"\1", rounded).strip()


@contextmanager
def drawing(
    width: float, height: float, *, left: float = 0.0, right: float = 0.0, top: float = 0.0, bottom: float = 0.0
) -> Iterator[Drawing]:
    """A picture of this size with so much room around its axes; matplotlib's settings are ours inside alone.

    Nothing is printed: neither that a font lacks a letter (the browser has others), nor where fonts are cached.
    """
    log = logging.getLogger("matplotlib")
    level = log.level
    log.setLevel(logging.CRITICAL)
    try:
        import matplotlib.style

        with warnings.catch_warnings(), matplotlib.style.context(["default", LOOK]):
            warnings.simplefilter("ignore")
            yield Drawing(width, height, (left, right, top, bottom))
    finally:
        log.setLevel(level)
