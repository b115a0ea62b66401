"""What the page and the terminal say of the images: as the model was trained on, and enough to calibrate by."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from toolkit.checks.coverage import CalibrationCheck, TensorCoverage
from toolkit.checks.inputs import InputsCheck, Mismatch, Tried
from toolkit.report import calibration
from toolkit.report.html import render
from toolkit.report.text import summary_lines
from toolkit.report.view import View
from toolkit.runs import Manifest, dump, read

HOSTILE = "<script>alert(1)</script>"


def looked_at(sample: Manifest) -> Manifest:
    finding = Mismatch("color", f"red and blue are swapped at {HOSTILE}", 'set data.preprocess = { color = "bgr" }')
    tried = (
        Tried("as they are", 192, 0.61, 0.65, 0.8, 0.0123),
        Tried("channels reversed", 192, 0.84, None, None, None),
    )
    tensors = (
        TensorCoverage(HOSTILE, -1.0, 2.0, 0.0118, 0.0125, 1.5, 20.0),
        TensorCoverage("head", 0, 1, 0.1, 0, 0, 0),
    )
    check = CalibrationCheck(
        "01-quantize", 200, "selection", 180, 16, 30.04, 29.5, 31.0, "200 images are enough", tensors
    )
    return replace(sample, inputs=InputsCheck(256, "bn0", tried, (finding,)), calibrations={"01-quantize": check})


def test_tables_hold_the_numbers(sample: Manifest) -> None:
    view = View(looked_at(sample))
    shown = str(calibration.inputs(view))
    assert all(text in shown for text in ("61.0%", "84.0%", "0.0123", "inputs of bn0", "as they are"))
    told = str(calibration.calibration(view))
    assert all(text in told for text in ("30.0", "29.5", "1.2%", "20.0", "half of them, 100", "180 others (selection)"))


def test_names_are_escaped(sample: Manifest) -> None:
    page = render(looked_at(sample))
    assert HOSTILE not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") >= 2


def test_clean_inputs_are_said_to_be(sample: Manifest) -> None:
    clean = replace(sample, inputs=InputsCheck(256, "bn0", (Tried("as they are", 256),)), calibrations={})
    assert "Nothing wrong was found on 256 images" in str(calibration.inputs(View(clean)))
    assert calibration.lines(View(clean)) == []


def test_what_was_not_looked_at_is_said(sample: Manifest) -> None:
    view = View(replace(sample, inputs=None, calibrations={}))
    assert "Not looked at" in str(calibration.inputs(view))
    assert "Not checked" in str(calibration.calibration(view))


def test_terminal_says_both(sample: Manifest) -> None:
    manifest = looked_at(sample)
    text = "\n".join(summary_lines(manifest))
    assert 'Fix: set data.preprocess = { color = "bgr" }' in text
    assert "calibration of" not in text  # it was enough
    check = replace(manifest.calibrations["01-quantize"], half_db=27.0, advice="take more than 200 images")
    more = replace(manifest, calibrations={"01-quantize": check})
    assert "calibration of 01-quantize: take more than 200 images" in "\n".join(summary_lines(more))


def test_manifest_keeps_both(sample: Manifest, tmp_path: Path) -> None:
    folder = tmp_path
    made = looked_at(sample)
    (folder / "manifest.json").write_bytes(dump(made))
    found = read(folder)
    assert (found.inputs, found.calibrations) == (made.inputs, made.calibrations)
