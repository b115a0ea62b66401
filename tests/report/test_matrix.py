"""The equivalence matrix in the page and on the terminal."""

from __future__ import annotations

from dataclasses import replace

import pytest

from toolkit.checks.diagnosis import Diagnosis
from toolkit.checks.divergence import Divergence
from toolkit.checks.equivalence import Equivalence, Pair, Subject
from toolkit.checks.layers import LayerError
from toolkit.report.html import render
from toolkit.report.matrix import lines, matrix
from toolkit.report.text import summary_lines
from toolkit.report.view import View
from toolkit.runs import DiagnosisRecord, Manifest

SUBJECTS = (
    Subject("original", runtime="keras"),
    Subject("float.tflite", "here", "litert", "float32", "original"),
    Subject("<b>.onnx", "here", "onnxruntime", "int8", "original"),
)
PAIRS = (
    Pair(0, 1, 360, 360, 2e-7, 131.25),
    Pair(0, 2, 360, 359, 0.04, 31.4),
    Pair(1, 2, 0, 0, None, None, "made up <i>"),
)
FOUND = Equivalence("softmax", 360, 360, SUBJECTS, PAIRS)


def shown(sample: Manifest, found: Equivalence | None = FOUND) -> View:
    return View(replace(sample, equivalence=found))


def test_agreement_is_above_and_difference_below_the_diagonal(sample: Manifest) -> None:
    rows = matrix(shown(sample)).split("<tbody>")[1].split("</tbody>")[0].split("<tr>")[1:]
    cells = [[cell.split("</td>")[0] for cell in row.split("<td")[1:]] for row in rows]
    assert [[">–" in cell for cell in row] for row in cells] == [[i == j for j in range(3)] for i in range(3)]
    assert "100%" in cells[0][1] and "99.72%" in cells[0][2] and "359/360" in cells[0][2]
    assert "131.2" in cells[1][0] and "2e-07" in cells[1][0]
    assert "not measured" in cells[2][1]


def test_almost_all_is_not_called_all(sample: Manifest) -> None:
    pair = Pair(0, 1, 100_000, 99_999, 0.1, 50.0)
    found = Equivalence("softmax", 100_000, 5_000, SUBJECTS[:2], (pair,))
    page = matrix(shown(sample, found))
    assert "99.99%" in page and "100%" not in page
    assert "over the first 5000" in page


def test_shade_grows_with_what_is_lost(sample: Manifest) -> None:
    page = matrix(shown(sample))
    assert 'class="n heat">131.2' in page
    assert 'class="n heat down1">31.4' in page


def test_unexpected_difference_is_marked_told_and_escaped(sample: Manifest) -> None:
    page = render(replace(sample, equivalence=FOUND))
    assert "made up &lt;i&gt;, by more than int8 explains: alike on 0 of 360 images, no usable answer." in page
    assert "<b>.onnx" not in page
    (line,) = lines(shown(sample))
    assert line.startswith("equivalence: <b>.onnx on here differs from float.tflite on here, made up <i>, by more")
    assert any(each.startswith("equivalence: ") for each in summary_lines(replace(sample, equivalence=FOUND)))


def test_where_all_is_well_the_terminal_says_nothing(sample: Manifest) -> None:
    fine = replace(FOUND, pairs=PAIRS[:2], subjects=SUBJECTS)
    sound = replace(fine, pairs=(*PAIRS[:2], replace(PAIRS[2], unexpected="")))
    assert lines(shown(sample, sound)) == []
    assert "No file differs from its model" in matrix(shown(sample, sound))


def test_sentence_names_the_layer_that_the_diagnosis_found(sample: Manifest) -> None:
    row = LayerError("conv<2>", ("conv<2>",), "CONV_2D", "t", "int8", 3, 3, 20, -1, 1, 0, 0.1, 0)
    found = Diagnosis("<b>.onnx", 4, "conv<2>", True, "advice", (row,), scheme="int8")
    known = replace(found, first=Divergence("conv<2>", row, 1, 3))
    for diagnosis, said in ((known, "the first layer to diverge is conv<2>"), (found, "no layer diverges")):
        record = DiagnosisRecord("sha", (4, True), diagnosis)
        manifest = replace(sample, equivalence=FOUND, diagnoses={"<b>.onnx": record})
        assert lines(View(manifest))[0].endswith(f"; {said}")
    page = render(manifest)
    assert "No layer diverges." in page and "conv&lt;2&gt;" in page


@pytest.mark.parametrize("head", ["embedding", "regression"])
def test_heads_without_decisions_have_an_empty_upper_half(sample: Manifest, head: str) -> None:
    found = Equivalence(head, 360, 360, SUBJECTS[:2], (Pair(0, 1, 360, None, 0.1, 40.0),))
    page = matrix(shown(sample, found))
    assert "Above the diagonal" not in page and "%" not in page


def test_run_without_answers_says_so(sample: Manifest) -> None:
    assert "No two models of this run answered" in matrix(shown(sample, None))
    assert lines(shown(sample, None)) == []
