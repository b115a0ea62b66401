"""What the page says of the insides of files, and of repairs."""

from __future__ import annotations

from dataclasses import replace
from xml.etree import ElementTree

from tests.report.test_charts import corners
from toolkit.checks.diagnosis import Diagnosis, Sensitive
from toolkit.checks.divergence import Divergence
from toolkit.checks.layers import LayerError
from toolkit.report import inside
from toolkit.report.html import render
from toolkit.report.markdown import summary
from toolkit.report.text import summary_lines
from toolkit.report.view import View
from toolkit.runs import DiagnosisRecord, Manifest, RepairRecord, RepairTrial, dump


def error(layer: str, alone: float) -> LayerError:
    return LayerError(layer, (f"{layer}_conv", layer), "CONV_2D", "t", "int8", 20.0, alone, 3.0, -1, 1, 0.25, 0.5, 3)


def diagnosed() -> Diagnosis:
    return Diagnosis(
        artifact="phone.tflite",
        images=16,
        culprit="<b>stem",
        faulty=True,
        advice="<b>stem is likely at fault",
        errors=(error("<b>stem", -3.0), error("head", 41.5)),
        sensitive=(Sensitive("head_conv", 30.0, 1.0, 28.0, 0.9, 2.5),),
        all_db=25.5,
        all_agreement=0.875,
    )


def manifest() -> Manifest:
    bare = Manifest("run", "done", "2026-01-01T00:00:00+00:00", recipe={}, seed=0, host={}, versions={}, outcome="PASS")
    trials = (
        RepairTrial(
            "as asked", "as the recipe has it", "quantize", {}, 1.0, "FAIL", "lost 9.0 points", 0.09, 0.8, 9.0, 10
        ),
        RepairTrial("equalize_bias", "equalize, bias", reason="the exporter refuses"),
        RepairTrial("mixed", "float32: stem", "quantize", {}, 2.0, "PASS", "lost 0.1 points", 0.001, 0.99, 30.0, 2048),
    )
    return replace(
        bare,
        diagnoses={"phone.tflite": DiagnosisRecord("0", (16, True), diagnosed())},
        repairs={"phone": RepairRecord("phone", "k", trials, 2)},
    )


def test_terminal_and_markdown_name_the_layer_of_a_file_that_does_not_pass(sample: Manifest) -> None:
    """tiny.tflite fails; server.onnx passes, and its layers are no news."""
    record = DiagnosisRecord("0", (16, True), replace(diagnosed(), first=Divergence("tail", error("tail", 9.0), 2, 5)))
    both = replace(sample, diagnoses={"tiny.tflite": record, "server.onnx": record})
    line = "layers: tiny.tflite: <b>stem is likely at fault; the first layer to diverge is tail"
    assert [each for each in summary_lines(both) if each.startswith("layers: ")] == [line]
    assert "layers: tiny.tflite: " in summary(both) and "layers: server.onnx" not in summary(both)


def test_first_layer_that_is_the_culprit_is_not_named_twice(sample: Manifest) -> None:
    first = Divergence("<b>stem", error("<b>stem", 9.0), 1, 5)
    record = DiagnosisRecord("0", (16, True), replace(diagnosed(), first=first))
    (line,) = inside.lines(View(replace(sample, diagnoses={"tiny.tflite": record})))
    assert line == "layers: tiny.tflite: <b>stem is likely at fault"


def test_bars_are_one_a_layer_worst_first_and_escaped() -> None:
    page = inside.diagnosis(View(manifest()))
    svg = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    assert [text.text for text in svg.iter("title")] == ["<b>stem: -3.0 dB", "head: 41.5 dB"]
    assert ["--worse" in (bar.get("style") or "") for bar in svg.iter("g")] == [True, False]
    assert [text.text for text in svg.iter("text")][::2] == ["<b>stem", "head"]
    assert "<b>stem" not in page


def test_only_a_layer_that_is_at_fault_is_red_and_no_error_is_no_number() -> None:
    sound = replace(diagnosed(), faulty=False, errors=(error("<b>stem", 30.0), error("pool", 200.0)))
    record = DiagnosisRecord("0", (16, True), sound)
    page = inside.diagnosis(View(replace(manifest(), diagnoses={"phone.tflite": record})))
    assert "var(--worse)" not in page and "var(--data)" in page
    assert "200.0</t" not in page and "no error</text>" in page and "no error</td>" in page


def test_bar_of_a_negative_error_runs_to_the_left_of_zero() -> None:
    page = inside.diagnosis(View(manifest()))
    svg = ElementTree.fromstring(page[page.index("<svg") : page.index("</svg>") + 6])
    first, second = ([x for x, _ in corners(next(bar.iter("path")))] for bar in svg.iter("g"))
    assert min(first) < max(first) == min(second) < max(second)


def test_sensitivity_stands_beside_the_layer_it_is_fused_into() -> None:
    page = inside.diagnosis(View(manifest()))
    assert "2.5</td>" in page
    assert "Simulated with every layer quantized: 25.5 dB at the output, 88% of decisions kept." in page


def test_repair_table_has_every_trial_and_what_stays() -> None:
    page = inside.repairs(View(manifest()))
    assert "2 tried; what stays: float32: stem." in page
    assert page.count("<tr>") == 4  # the heading and three trials
    assert "the exporter refuses" in page
    assert "9.00 points" in page
    assert page.count("–</td>") == 6  # of the rung that was not tried: none of its numbers


def test_page_holds_both_sections_and_survives_its_own_json() -> None:
    import tempfile
    from pathlib import Path

    from toolkit.runs import read

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "manifest.json").write_bytes(dump(manifest()))
        again = read(Path(folder))
    assert again.repairs == manifest().repairs
    assert again.diagnoses == manifest().diagnoses
    page = render(again)
    assert all(f'id="{key}"' in page for key in ("diagnosis", "repairs"))
