"""Pictures of answers: where cells, dots and columns lie, and that each has its own title."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from tests.report.test_charts import corners, middle, written
from toolkit.report import pictures
from toolkit.report.pictures import Cell


def titled(text: str) -> dict[str, ElementTree.Element]:
    """Groups by their title."""
    return {group[0].text or "": group for group in ElementTree.fromstring(text).iter("g") if group[0].tag == "title"}


def test_cells_of_a_matrix_lie_in_their_row_and_column() -> None:
    cells = (Cell(0, 0, "7", "a as a: 7", 1.0, "right"), Cell(2, 1, "3", "c as b: 3", 0.5, "wrong"))
    text = pictures.matrix(cells, ("a", "b", "c"), summary="s")
    first, other = titled(text)["a as a: 7"], titled(text)["c as b: 3"]
    left, step = 14 + pictures.LETTER, pictures.GRID / 3
    assert middle(first) == pytest.approx((left + step / 2, 1 + step / 2), abs=0.2)
    assert middle(other) == pytest.approx((left + 1.5 * step, 1 + 2.5 * step), abs=0.2)
    assert "var(--data)" in ElementTree.tostring(first, "unicode")
    assert "fill:var(--worse);fill-opacity:0.56" in ElementTree.tostring(other, "unicode")
    root = ElementTree.fromstring(text)
    assert written(root)["3"][0] == pytest.approx(left + 1.5 * step, abs=0.2)
    colours = {node.text: node.get("style") for node in root.iter("text") if node.text in ("7", "3")}
    assert "--paper" in (colours["7"] or "") and "--ink" in (colours["3"] or "")


def test_names_at_a_matrix_are_cut_and_escaped_and_of_many_classes_left_out() -> None:
    names = [*written(ElementTree.fromstring(pictures.matrix((), ("<b>$x_1$ and more", "b"), summary="")))]
    assert names == ["<b>$x_1$ a…", "b"]
    many = tuple(f"class {place}" for place in range(30))
    drawn = pictures.matrix((Cell(29, 0, "1", "last as first", 1, "wrong"),), many, summary="")
    assert set(written(ElementTree.fromstring(drawn))) == {"label", "decision"}
    assert list(titled(drawn)) == ["last as first"]


def test_dots_of_reliability_lie_at_their_bins_and_say_what_they_are() -> None:
    drawn = titled(pictures.reliability({"<m>": ((90, 0.5, 0.25), (0, 0.6, 0.0), (10, 1.0, 1.0))}, summary=""))
    titles = ["<m>: 90 images at 50% confidence, 25% right", "<m>: 10 images at 100% confidence, 100% right"]
    assert list(drawn) == titles
    many, few = drawn.values()
    assert middle(many) == pytest.approx((40 + 242 / 2, 264 - 240 / 4), abs=0.3)
    assert middle(few) == pytest.approx((282, 24), abs=0.3)
    sizes = [
        max(corners(path))[0] - min(corners(path))[0] for path in (next(each.iter("path")) for each in drawn.values())
    ]
    assert sizes == pytest.approx([3.6 + 9 * 0.9**0.5, 3.6 + 9 * 0.1**0.5], abs=0.3)


def test_curves_of_a_roc_are_told_apart() -> None:
    drawn = titled(pictures.roc({"a": ((0, 0), (0, 1), (1, 1)), "b": ((0, 0), (1, 1))}, summary=""))
    assert corners(next(drawn["a"].iter("path"))) == [(40, 264), (40, 24), (282, 24)]
    assert "--c0" in ElementTree.tostring(drawn["a"], "unicode") and "--c1" in ElementTree.tostring(
        drawn["b"], "unicode"
    )


def test_columns_of_a_histogram_are_as_high_as_their_counts() -> None:
    drawn = titled(pictures.histogram((1, 0, 4), 0.25, 1.0, label="cosine", summary=""))
    assert list(drawn) == ["0.25 to 0.5: 1 images", "0.5 to 0.75: 0 images", "0.75 to 1: 4 images"]
    places = [corners(next(each.iter("path"))) for each in drawn.values()]
    tops = [max(y for _, y in each) - min(y for _, y in each) for each in places]
    assert tops[2] == pytest.approx(4 * tops[0], abs=0.3)
    assert tops[1] == 0
    assert min(places[1])[0] == pytest.approx(max(places[0])[0], abs=0.1)
    assert pictures.histogram((), 0.0, 1.0, label="", summary="")
