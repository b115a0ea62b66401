"""Where marks, bars, lines and names lie, read from the SVG; what is said of them; what of matplotlib stays out."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from toolkit.report import bars, charts
from toolkit.report.drawing import colour, drawing

LEFT, RIGHT, TOP, BOTTOM = 50, 386, 38, 260  # of a scatter's axes
WIDE, HIGH = RIGHT - LEFT, BOTTOM - TOP


def test_bars_scale_maps_ends_and_middle() -> None:
    scale = bars.Scale(0.0, 10.0)
    assert (scale(0), scale(5), scale(10)) == (2, 66, 130)
    assert (scale(-3), scale(99)) == (2, 130)  # held inside
    assert bars.Scale(5.0, 5.0)(5.0) == 66


def _points() -> list[charts.Point]:
    return [
        charts.Point("a", (50.0, 50.0, 50.0), (0.5, 0.4, 0.6), "pass", "a: 50"),
        charts.Point("b", (100.0, 90.0, 110.0), (0.9, 0.9, 0.9), "fail", "b: 100"),
    ]


def _axis(limit: tuple[float, str] | None = None) -> charts.Axis:
    return charts.Axis("size", "{:g}".format, limit)


def _scatter(points: list[charts.Point] | None = None, limit: tuple[float, str] | None = None) -> ElementTree.Element:
    drawn = charts.scatter(points or _points(), _axis(limit), _axis(), summary="two points")
    return ElementTree.fromstring(drawn)


def groups(root: ElementTree.Element, kind: str) -> list[ElementTree.Element]:
    """Groups of a class."""
    return [group for group in root.iter("g") if kind in (group.get("class") or "").split()]


def numbers(text: str | None) -> list[float]:
    return [float(each) for each in re.findall(r"-?[\d.]+", text or "")]


def corners(path: ElementTree.Element) -> list[tuple[float, float]]:
    """Places along a path, where it is drawn."""
    across, up = numbers(path.get("transform")) or (0.0, 0.0)
    found = numbers(path.get("d"))
    return [(x + across, y + up) for x, y in zip(found[::2], found[1::2], strict=True)]


def middle(group: ElementTree.Element) -> tuple[float, float]:
    """Of the last shape in a group: a mark's own, after what can be touched and the ring."""
    xs, ys = zip(*corners(list(group.iter("path"))[-1]), strict=True)
    return (min(xs) + max(xs)) / 2, (min(ys) + max(ys)) / 2


def written(root: ElementTree.Element) -> dict[str, tuple[float, float]]:
    """Texts of a picture, and where they stand."""
    return {text.text or "": (float(text.get("x", "")), float(text.get("y", ""))) for text in root.iter("text")}


def below(root: ElementTree.Element) -> list[str]:
    """The ticks of the level axis."""
    return [text for text, (x, y) in written(root).items() if x > LEFT and BOTTOM < y < BOTTOM + 20]


# ---------------------------------------------------------------- scatter


def test_scatter_puts_marks_where_the_scales_say() -> None:
    # x: 0 .. 110 * 1.12 = 123.2. y: 0.4 .. 0.9 with 8% of 0.5 = 0.04 of air, 0.36 .. 0.94
    expected = [
        (LEFT + WIDE * 50 / 123.2, BOTTOM - HIGH * (0.5 - 0.36) / 0.58),
        (LEFT + WIDE * 100 / 123.2, BOTTOM - HIGH * (0.9 - 0.36) / 0.58),
    ]
    found = [middle(group) for group in groups(_scatter(), "mark")]
    assert found == [pytest.approx(place, abs=0.2) for place in expected]


def test_values_far_apart_stand_in_logarithms_with_round_ticks_one_two_five() -> None:
    points = [charts.Point("", (x,) * 3, (0.5,) * 3, "none", "t") for x in (9.0, 90.0, 400.0)]
    root = _scatter(points)
    low, high = math.log(9 / 1.5), math.log(400 * 1.5)
    expected = [LEFT + WIDE * (math.log(x) - low) / (high - low) for x in (9, 90, 400)]
    assert [middle(group)[0] for group in groups(root, "mark")] == pytest.approx(expected, abs=0.2)
    assert below(root) == ["10", "20", "50", "100", "200", "500"]


def test_values_over_many_decades_have_a_tick_a_decade() -> None:
    points = [charts.Point("", (x,) * 3, (0.5,) * 3, "none", "t") for x in (0.001, 100.0)]
    assert [float(text) for text in below(_scatter(points))] == [0.001, 0.01, 0.1, 1, 10, 100]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 10.0, (0, 2, 4, 6, 8, 10)),
        (0.81, 1.0, (0.85, 0.9, 0.95, 1.0)),
        (-1.0, 1.0, (-1.0, -0.5, 0.0, 0.5, 1.0)),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: tuple[float, ...]) -> None:
    with drawing(300, 300, left=50, bottom=50) as made:
        made.axes.set_ylim(low, high)
        made.axes.set_xticks([])
        made.ticks("y", "{:g}".format)
        texts = written(ElementTree.fromstring(made.svg()))
    assert [float(text.replace("\u2212", "-")) for text in texts] == pytest.approx(expected)


def test_scatter_draws_bars_only_for_intervals() -> None:
    root = _scatter()
    upright, level = groups(root, "bar")
    (a, b) = (middle(mark) for mark in groups(root, "mark"))
    line, *caps = upright.iter("path")
    tenth, tenth_across = HIGH * 0.1 / 0.58, WIDE * 10 / 123.2
    assert corners(line) == [pytest.approx((a[0], a[1] + way * tenth), abs=0.2) for way in (1, -1)]
    assert len(caps) == 2
    assert "var(--pass)" in (upright.get("style") or "")
    assert [x for x, _ in corners(next(level.iter("path")))] == pytest.approx(
        [b[0] - tenth_across, b[0] + tenth_across], abs=0.2
    )
    assert "var(--fail)" in (level.get("style") or "")


def test_shape_says_what_colour_says() -> None:
    points = [charts.Point("", (n + 1.0,) * 3, (0.5,) * 3, shape, shape) for n, shape in enumerate(charts.MARKS)]
    marks = groups(_scatter(points), "mark")
    assert [mark.get("class") for mark in marks] == [f"mark {shape}" for shape in charts.MARKS]
    shapes = [list(mark.iter("path"))[-1] for mark in marks]
    outlines = [re.sub(r"[\d. -]", "", shape.get("d") or "") for shape in shapes]
    assert outlines[0] == outlines[3] == "MLLLz"  # diamond and square: the one stands on a corner
    assert len({y for _, y in corners(shapes[0])}) == 3
    assert len({y for _, y in corners(shapes[3])}) == 2
    assert (outlines[2], outlines[1]) == ("MLLz", "MCCCC")
    fills = [(shape.get("style") or "").partition(";")[0] for shape in shapes]
    assert fills == [f"fill:var(--{role})" for role in ("ink", "pass", "unsure", "fail", "paper")]


def test_scatter_says_in_words_what_it_shows() -> None:
    root = _scatter()
    assert root.get("role") == "group"
    assert root.get("aria-label") == "two points"
    marks = [group for group in root.iter("g") if group.get("tabindex") == "0"]
    assert [(mark.get("role"), mark.get("aria-label")) for mark in marks] == [("img", "a: 50"), ("img", "b: 100")]
    assert {title.text for title in root.iter("title")} == {"a: 50", "b: 100"}
    assert all(mark.find("title") is not None for mark in marks)  # its own child: the page's script looks there


def test_what_can_be_touched_of_a_mark_is_as_large_as_a_fingertip() -> None:
    touched = next(groups(_scatter(), "mark")[0].iter("path"))
    xs = [x for x, _ in corners(touched)]
    assert max(xs) - min(xs) == pytest.approx(28, abs=0.2)
    assert (touched.get("style") or "").startswith("fill:var(--glow);")  # seen where it is focused or told of


@pytest.mark.parametrize(
    ("places", "higher", "expected"),
    [
        ([(1, 0.5), (2, 0.9), (3, 0.8), (4, 0.95)], True, [True, True, False, True]),
        ([(1, 0.5), (2, 0.9), (3, 0.4), (4, 0.95)], False, [True, False, True, False]),  # an error: low is good
        ([(1, 0.5), (1, 0.5), (1, 0.4)], True, [True, True, False]),  # equals do not beat each other
        ([(2, 0.5), (1, 0.5)], True, [False, True]),
        ([], True, []),
    ],
)
def test_frontier_is_what_nothing_beats(places: list[tuple[float, float]], higher: bool, expected: list[bool]) -> None:
    assert charts.frontier(places, higher=higher) == expected


def test_scatter_draws_the_frontier_through_its_points_alone() -> None:
    costs = ((20.0, 0.4, True), (50.0, 0.3, False), (100.0, 0.9, True))
    points = [charts.Point("", (x,) * 3, (y,) * 3, "none", "t", best=best) for x, y, best in costs]
    root = _scatter(points)
    (line,) = (next(group.iter("path")) for group in groups(root, "frontier"))
    marks = groups(root, "mark")
    assert [sum("--data" in (path.get("style") or "") for path in mark.iter("path")) for mark in marks] == [1, 0, 1]
    first, _, last = map(middle, marks)
    assert corners(line) == [pytest.approx(place, abs=0.2) for place in (first, (last[0], first[1]), last)]


def test_budget_is_a_line_with_its_name() -> None:
    root = _scatter(limit=(80.0, "budget"))
    (line,) = (path for group in groups(root, "limit") for path in group.iter("path"))
    x = LEFT + WIDE * 80 / 123.2
    assert sorted(corners(line)) == [pytest.approx((x, y), abs=0.1) for y in (TOP, BOTTOM)]
    assert written(root)["budget"][0] == pytest.approx(x - 5, abs=0.1)


def test_budget_far_beyond_every_mark_is_named_at_the_edge() -> None:
    drawn = [_scatter(limit=(value, "budget")) for value in (200.0, 5000.0, 1.0)]
    lines = [[path for group in groups(root, "limit") for path in group.iter("path")] for root in drawn]
    names = [[text.text for group in groups(root, "limit") for text in group.iter("text")] for root in drawn]
    assert [len(each) for each in lines] == [1, 0, 1]  # of a scale that begins at nothing, 1 is inside
    assert names == [["budget"], ["budget →"], ["budget"]]


def test_scatter_labels_do_not_overlap_when_points_coincide() -> None:
    points = [charts.Point(f"artifact-{n}", (5.0,) * 3, (0.5,) * 3, "none", "") for n in range(5)]
    labels = [next(group.iter("text")) for group in groups(_scatter(points), "label")]
    assert len(labels) == 5
    rows = sorted((float(text.get("x", "")), float(text.get("y", ""))) for text in labels)
    assert all(abs(a[0] - b[0]) > 50 or abs(a[1] - b[1]) >= 11 for place, a in enumerate(rows) for b in rows[:place])


def test_names_that_find_no_room_are_left_to_their_marks() -> None:
    points = [charts.Point(f"artifact-{n}", (5.0,) * 3, (0.5,) * 3, "none", f"artifact-{n}") for n in range(60)]
    root = _scatter(points)
    assert 5 < len(groups(root, "label")) < 40
    assert len(groups(root, "mark")) == 60


# ---------------------------------------------------------------- waterfall


def test_waterfall_bar_runs_from_before_to_value() -> None:
    root = ElementTree.fromstring(bars.bar(bars.Scale(0.0, 128.0), 30.0, 80.0, better=True))
    (bar,) = root.iter("rect")
    assert (bar.get("x"), bar.get("width"), bar.get("class")) == ("32", "50", "step better")


def test_waterfall_bar_is_only_a_tick_without_a_stage_before() -> None:
    root = ElementTree.fromstring(bars.bar(bars.Scale(0.0, 1.0), 0.5, None, better=None))
    assert not list(root.iter("rect"))


# ---------------------------------------------------------------- curves


def _curve(*values: float) -> list[ElementTree.Element]:
    """What is drawn in the colour of the first line: its path, then the dot at its end."""
    root = ElementTree.fromstring(charts.curves({"loss": values}, title="loss", show=str))
    return [path for path in root.iter("path") if "--c0" in (path.get("style") or "")]


@pytest.mark.parametrize("hole", [math.nan, math.inf])
def test_curves_break_at_what_is_not_finite(hole: float) -> None:
    path, dot = (each.get("d") or "" for each in _curve(1.0, 0.75, hole, 0.5, 0.25))
    assert re.sub(r"[\d. -]", "", path) == "MLML"
    assert "C" in dot


def test_curves_put_epochs_and_values_in_order() -> None:
    places = corners(_curve(1.0, 0.5, 0.75)[0])
    assert [x for x, _ in places] == pytest.approx([50, 170, 290])
    assert (places[1][1] - places[0][1]) == pytest.approx(2 * (places[1][1] - places[2][1]), abs=0.2)


def test_curves_of_nothing_finite_say_so() -> None:
    assert "no finite value" in charts.curves({"loss": (math.nan, math.inf)}, title="loss", show=str)


def test_curves_draw_a_single_epoch() -> None:
    dot = _curve(0.5)[-1]
    assert "C" in (dot.get("d") or "")
    assert numbers(dot.get("transform"))[0] == 50


def test_every_line_of_a_curve_has_its_own_stroke_and_the_legend_has_the_same() -> None:
    told = [str(charts.stroke(place)) for place in range(8)]
    assert len(set(told)) == 8
    for place in (0, 1, 3):
        line = {f"{n}": (1.0, 2.0) for n in range(place + 1)}
        drawn = re.findall(rf'style="([^"]*var\(--c{place}\)[^"]*)"', charts.curves(line, title="", show=str))
        assert drawn[0] in charts.key(place)


# ---------------------------------------------------------------- what of matplotlib stays out


def test_nothing_but_shapes_and_texts_is_kept() -> None:
    point = charts.Point("a $x_1$ <b>", (1.0,) * 3, (0.5,) * 3, "pass", "t")
    text = charts.scatter([point], _axis(), _axis(), summary="s")
    root = ElementTree.fromstring(text)
    assert {node.tag for node in root.iter()} <= {"svg", "g", "path", "text", "title"}
    keys = {key for node in root.iter() for key in node.attrib}
    assert keys <= {"viewBox", "class", "role", "aria-label", "tabindex", "d", "x", "y", "transform", "style"}
    assert "a $x_1$ <b>" in written(root)  # as it is, and no formula
    assert not re.search(r"#[0-9a-f]{6}|font-family|matplotlib|http", text)


def test_colours_are_the_pages_and_the_page_has_them() -> None:
    from toolkit.report.drawing import ROLES
    from toolkit.report.style import STYLE

    assert len({colour(role) for role in ROLES}) == len(ROLES)
    assert [role for role in ROLES if f"--{role}:" not in STYLE] == []


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    import matplotlib

    before = matplotlib.rcParams.copy()
    _scatter()
    assert matplotlib.rcParams.copy() == before


def test_what_a_user_has_set_changes_nothing() -> None:
    import matplotlib

    plain = charts.scatter(_points(), _axis(), _axis(), summary="")
    with matplotlib.rc_context({"svg.fonttype": "path", "lines.linewidth": 9, "axes.grid": False, "font.size": 30}):
        assert charts.scatter(_points(), _axis(), _axis(), summary="") == plain


def test_nothing_is_printed_where_home_cannot_be_written_or_a_letter_is_unknown(tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_text("")
    script = """import sys
from toolkit.report import charts
point = charts.Point("\u4e2d\u6587", (1.0,) * 3, (0.5,) * 3, "pass", "t")
drawn = charts.scatter([point], charts.Axis("x", str), charts.Axis("y", str), summary="")
assert "\u4e2d\u6587" in drawn
assert "matplotlib.pyplot" not in sys.modules"""
    homes = dict.fromkeys(("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR"), str(blocked / "home"))
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, **homes}, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
