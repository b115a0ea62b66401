"""The pictures say what the answers were: counts, areas and names worked out again from the manifest."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from toolkit import runs
from toolkit.checks import details
from toolkit.checks.accuracy import Predictions
from toolkit.report import confusions
from toolkit.report.html import render
from toolkit.report.text import summary_lines
from toolkit.report.view import View
from toolkit.runs import Manifest


def part(page: str, key: str) -> str:
    found = re.search(rf'<section id="{key}".*?</section>', page, re.DOTALL)
    assert found, f"no section {key}"
    return found[0]


@pytest.fixture(scope="module")
def ten(answered: Any) -> Manifest:
    return answered("logits", missing=7)  # type: ignore[no-any-return]


# ---------------------------------------------------------------- what the manifest keeps


class Labels:
    """A split of which only labels count."""

    name, fingerprint, task = "test", "f00d", "classes"

    def __init__(self, labels: list[int], classes: int) -> None:
        self.labels, self.classes = np.array(labels), tuple(map(str, range(classes)))

    def __len__(self) -> int:
        return len(self.labels)


def drawn(decided: list[int], labels: list[int], classes: int) -> details.Details:
    outputs = np.eye(classes)[decided] * 0.9 + 0.1 / classes
    return details.of_answers(Predictions("a", outputs, "softmax"), Labels(labels, classes))  # type: ignore[arg-type]


def test_confusions_are_counted_off_the_diagonal() -> None:
    found = drawn([0, 1, 1, 2, 0, 1], [0, 0, 0, 2, 1, 1], 3)
    assert found.confusion == details.Confusion(decided=(2, 3, 1), cells=((0, 1, 2), (1, 0, 1)))
    sure = found.reliability[14] if found.reliability[14].images else found.reliability[13]
    assert (sure.images, sure.accuracy) == (6, 0.5)
    assert sure.confidence == pytest.approx(0.9 + 0.1 / 3, abs=1e-4)


def test_of_many_classes_the_most_frequent_confusions_are_kept() -> None:
    """Class 0 is taken for each of 599 others once, for class 600 three times."""
    found = drawn([*range(1, 600), 600, 600, 600], [0] * 602, 601)
    assert found.confusion is not None
    assert found.confusion.cells[0] == (0, 600, 3)
    assert len(found.confusion.cells) == details.MOST_PAIRS
    assert found.confusion.rest == 602 - 3 - (details.MOST_PAIRS - 1)


def test_curves_run_from_corner_to_corner_and_keep_their_area() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 3000)
    scores = rng.normal(size=(3000, 4)) + np.eye(4)[labels]
    curves = details._curves(scores, np.eye(4, dtype=bool)[labels], tuple("abcd"))
    assert curves[0].name == "mean"
    assert len(curves) == 1 + details.WORST_CURVES
    assert curves[1].auc <= curves[2].auc <= curves[3].auc
    for curve in curves:
        assert len(curve.points) <= details.MOST_POINTS + 1
        assert (curve.points[0], curve.points[-1]) == ((0, 0), (1, 1))
        across, up = np.array(curve.points).T
        assert np.trapezoid(up, across) == pytest.approx(curve.auc, abs=0.01)


def test_manifest_with_details_is_read_back_as_it_was(answered: Any, tmp_path: Any) -> None:
    for head in ("logits", "sigmoids", "embedding", "regression"):
        manifest = answered(head)
        (tmp_path / "manifest.json").write_bytes(runs.dump(manifest))
        assert runs.read(tmp_path).details == manifest.details


def test_a_thousand_classes_stay_small(answered: Any) -> None:
    manifest = answered("logits", classes=1000, images=600)
    page = render(manifest)
    details_alone = len(runs.dump(manifest)) - len(runs.dump(replace(manifest, details={})))
    assert details_alone < 150_000
    assert len(page) < 400_000
    assert "class matrices" not in page
    assert "Most frequent confusions of" in part(page, "metrics")


# ---------------------------------------------------------------- the page


def test_matrix_holds_every_count_and_what_changed(ten: Manifest) -> None:
    view = View(ten)
    for subject in ("original", "tiny.tflite"):
        known = confusions.counts(view, subject)
        assert sum(known.values()) == sum(each["total"] for each in ten.per_class[subject])
    page = part(render(ten), "metrics")
    (row, column), images = next(iter(confusions.counts(view, "tiny.tflite").items()))
    total = ten.per_class["tiny.tflite"][row]["total"]
    assert f"<title>class {row} as class {column}: {images} of {total}</title>" in page
    before, after = confusions.counts(view, "original"), confusions.counts(view, "tiny.tflite")
    key = max(after, key=lambda cell: after[cell] - before.get(cell, 0))
    assert f"class {key[0]} as class {key[1]}: +{after[key] - before.get(key, 0)} images" in page


def test_worst_class_is_first_with_recall_precision_and_f1(ten: Manifest) -> None:
    rows = ten.per_class["tiny.tflite"]
    recall, place = min((each["correct"] / each["total"], at) for at, each in enumerate(rows) if each["total"])
    page = part(render(ten), "metrics")
    table = page[page.index("Worst classes of tiny.tflite") :]
    first = re.search(r"<tbody><tr>(.*?)</tr>", table)
    assert first
    assert f">class {place}<" in first[1]
    assert f"{100 * recall:.1f}%" in first[1]
    confusion = ten.details["tiny.tflite"].confusion
    assert confusion is not None
    f1 = 2 * rows[place]["correct"] / (rows[place]["total"] + confusion.decided[place])
    assert f"{100 * f1:.1f}%" in first[1]


def test_what_was_left_out_is_said(ten: Manifest) -> None:
    page = part(render(ten), "metrics")
    assert "Left out of precision, macro; recall, macro; F1, macro; F1, weighted: class 7: without images" in page


@pytest.mark.parametrize(
    "head, words",
    [
        (
            "sigmoids",
            ["Mean average precision", "Labels of", "Left out of mean average precision", "label 4", "ROC: each label"],
        ),
        ("embedding", ["Retrieval at 1", "cosine to the original", "Cosine with the original"]),
        ("regression", ["Mean absolute error", "Root mean squared error", "angle"]),
    ],
)
def test_each_head_has_its_own_page(answered: Any, head: str, words: list[str]) -> None:
    manifest = answered(head)
    page = render(manifest)
    text = part(page, "metrics")
    assert all(word in text for word in words)
    assert "<h2" in page
    score = {"sigmoids": "Mean average precision", "embedding": "Retrieval at 1", "regression": "Mean absolute error"}[
        head
    ]
    assert f"{score} against cost" in part(page, "tradeoffs")
    assert score in part(page, "waterfall")
    assert score in part(page, "wins")
    assert b"NaN" not in runs.dump(manifest)
    assert score.lower() in summary_lines(manifest)[0]


def test_growing_error_keeps_its_sign_and_a_lost_score_is_negative(answered: Any) -> None:
    for head, name, sign in (
        ("regression", "mae_increase", "+"),
        ("sigmoids", "mean_average_precision_drop", "\u2212"),
    ):
        manifest = answered(head)
        view = View(manifest)
        assert view.loss == name
        artifact = next(item for item in manifest.artifacts if item.name == "tiny.tflite")
        drop = view.drop(artifact)
        assert drop is not None
        assert drop.value > 0
        row = next(line for line in render(manifest).split("<tr") if "tiny.tflite<small>int8" in line)
        assert f">{sign}" in row
