"""Coordinates worked out by hand."""

from __future__ import annotations

import math
import re
from xml.etree import ElementTree

import pytest

from toolkit.report import charts


def test_scale_maps_ends_and_middle() -> None:
    scale = charts.Scale(0.0, 10.0, 100.0, 200.0)
    assert (scale(0), scale(5), scale(10)) == (100, 150, 200)
    assert (scale(-3), scale(99)) == (100, 200)  # held inside


def test_scale_turned_round_maps_high_values_up() -> None:
    assert charts.Scale(0.8, 1.0, 250.0, 50.0)(0.95) == pytest.approx(100.0)


def test_scale_in_logarithms_puts_the_geometric_mean_in_the_middle() -> None:
    assert charts.Scale(1.0, 100.0, 0.0, 80.0, log=True)(10.0) == pytest.approx(40.0)


def test_scale_of_one_value_is_its_middle() -> None:
    assert charts.Scale(5.0, 5.0, 0.0, 10.0)(5.0) == 5.0


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0.0, 10.0, (0, 2, 4, 6, 8, 10)),
        (0.81, 1.0, (0.85, 0.9, 0.95, 1.0)),
        (0.3, 0.3, (0.3,)),
        (-1.0, 1.0, (-1.0, -0.5, 0.0, 0.5, 1.0)),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, expected: tuple[float, ...]) -> None:
    assert charts.ticks(low, high) == pytest.approx(expected)


def test_decades_are_one_two_five() -> None:
    assert charts.decades(6.0, 600.0) == (10, 20, 50, 100, 200, 500)
    assert charts.decades(0.001, 100.0) == (0.001, 0.01, 0.1, 1, 10, 100)


def _points() -> list[charts.Point]:
    return [
        charts.Point("a", (50.0, 50.0, 50.0), (0.5, 0.4, 0.6), "pass", "a: 50"),
        charts.Point("b", (100.0, 90.0, 110.0), (0.9, 0.9, 0.9), "fail", "b: 100"),
    ]


def _scatter() -> ElementTree.Element:
    axis = charts.Axis("size", lambda value: f"{value:g}")
    return ElementTree.fromstring(charts.scatter(_points(), axis, axis, summary="two points"))


def test_scatter_puts_marks_where_the_scales_say() -> None:
    # x: 0 .. 110 * 1.12 = 123.2 over 54 .. 424. y: 0.4 .. 0.9 with 8% of 0.5 = 0.04 of air, 0.36 .. 0.94 over 266 .. 38
    places = [group.get("transform") for group in _scatter().iter("g")]
    expected = [
        (54 + 370 * 50 / 123.2, 266 - 228 * (0.5 - 0.36) / 0.58),
        (54 + 370 * 100 / 123.2, 266 - 228 * (0.9 - 0.36) / 0.58),
    ]
    assert places == [f"translate({x:.1f} {y:.1f})" for x, y in expected]


def test_scatter_draws_bars_only_for_intervals() -> None:
    bars = [path for path in _scatter().iter("path") if (path.get("class") or "").startswith("bar")]
    assert [bar.get("class") for bar in bars] == ["bar pass", "bar fail"]  # a's upright one, b's level one


def test_scatter_says_in_words_what_it_shows() -> None:
    root = _scatter()
    assert root.get("role") == "group"
    assert root.get("aria-label") == "two points"
    marks = [group for group in root.iter("g") if group.get("tabindex") == "0"]
    assert [(mark.get("role"), mark.get("aria-label")) for mark in marks] == [("img", "a: 50"), ("img", "b: 100")]
    assert {title.text for title in root.iter("title")} == {"a: 50", "b: 100"}


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
    axis = charts.Axis("size", lambda value: f"{value:g}")
    costs = ((20.0, 0.4, True), (50.0, 0.3, False), (100.0, 0.9, True))
    points = [charts.Point("", (x,) * 3, (y,) * 3, "none", "t", best=best) for x, y, best in costs]
    root = ElementTree.fromstring(charts.scatter(points, axis, axis, summary=""))
    (line,) = (path.get("d") for path in root.iter("path") if path.get("class") == "frontier")
    best = [group for group in root.iter("g") if group.find("circle[@class='halo']") is not None]
    ends = [re.findall(r"[\d.]+", group.get("transform") or "") for group in best]
    assert line == f"M{ends[0][0]} {ends[0][1]}H{ends[1][0]}V{ends[1][1]}"


def test_budget_far_beyond_every_mark_is_named_at_the_edge() -> None:
    near = charts.Axis("size", lambda value: f"{value:g}", (200.0, "budget"))
    far = charts.Axis("size", lambda value: f"{value:g}", (5000.0, "budget"))
    plain = charts.Axis("score", str)
    drawn = [ElementTree.fromstring(charts.scatter(_points(), axis, plain, summary="")) for axis in (near, far)]
    lines = [[each for each in root.iter("line") if each.get("class") == "limit"] for root in drawn]
    names = [[each.text for each in root.iter("text") if "limit" in (each.get("class") or "")] for root in drawn]
    assert [len(each) for each in lines] == [1, 0]
    assert names == [["budget"], ["budget →"]]


def test_scatter_labels_do_not_overlap_when_points_coincide() -> None:
    axis = charts.Axis("x", str)
    points = [charts.Point(f"artifact-{n}", (5.0,) * 3, (0.5,) * 3, "none", "") for n in range(5)]
    root = ElementTree.fromstring(charts.scatter(points, axis, axis, summary=""))
    labels = [(text.get("x"), text.get("y")) for text in root.iter("text") if "label" in (text.get("class") or "")]
    assert len(set(labels)) == 5


def test_waterfall_bar_runs_from_before_to_value() -> None:
    scale = charts.Scale(0.0, 100.0, 0.0, 100.0)
    root = ElementTree.fromstring(charts.waterfall_bar(scale, 30.0, 80.0, better=True))
    (bar,) = root.iter("rect")
    assert (bar.get("x"), bar.get("width"), bar.get("class")) == ("30", "50", "step better")


def test_waterfall_bar_is_only_a_tick_without_a_stage_before() -> None:
    root = ElementTree.fromstring(charts.waterfall_bar(charts.Scale(0.0, 1.0, 0.0, 9.0), 0.5, None, better=None))
    assert not list(root.iter("rect"))


def test_curves_break_at_nan() -> None:
    text = charts.curves({"loss": (1.0, math.nan, 0.5, 0.25)}, title="loss", show=str)
    (path,) = re.findall(r'<path d="([^"]*)"', text)
    assert path.count("M") == 2
    assert path.count("L") == 1


def test_curves_of_nothing_finite_say_so() -> None:
    assert "no finite value" in charts.curves({"loss": (math.nan, math.inf)}, title="loss", show=str)


def test_curves_draw_a_single_epoch() -> None:
    root = ElementTree.fromstring(charts.curves({"loss": (0.5,)}, title="loss", show=str))
    assert len(list(root.iter("circle"))) == 1
