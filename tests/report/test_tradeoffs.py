"""Pareto charts: which there are, what their marks say, and what is said where a number is missing."""

from __future__ import annotations

from dataclasses import replace

from tests.report.test_html import Page
from toolkit.core import Measurement
from toolkit.report.tradeoffs import tradeoffs
from toolkit.report.view import View
from toolkit.runs import Manifest

DEVICE = "this-machine"


def _charts(manifest: Manifest) -> dict[str, str]:
    """Charts by their title, and what they say in words."""
    page = Page(tradeoffs(View(manifest)))
    labels = (a.get("aria-label") or "" for tag, a in page.tags if tag == "svg")
    return dict(label.split(": ", 1) for label in labels if label)


def test_every_file_stands_in_every_chart_and_says_whether_it_is_on_the_frontier(sample: Manifest) -> None:
    charts = _charts(sample)
    assert list(charts) == ["accuracy against latency p50 on this-machine", "accuracy against size"]
    for text in charts.values():
        assert all(f"{item.name}: " in text for item in sample.artifacts)
    # original 98.9% (both files), server 98.6%, phone 98.1%, tiny 86.1%; the dearer, the better, but for original.onnx
    assert charts["accuracy against size"].count("not on the frontier") == 1
    assert "original.onnx: 371" in charts["accuracy against size"].split("not on the frontier")[0]


def test_energy_is_drawn_for_each_device_that_tells_it(sample: Manifest) -> None:
    assert "Energy: not measured." in tradeoffs(View(sample))
    metered = tuple(
        Measurement(name, "energy_per_inference_mj", value, "mJ", "measured", DEVICE)
        for name, value in (("original.tflite", 9.0), ("phone.tflite", 3.0), ("tiny.tflite", 4.0))
    )
    charts = _charts(replace(sample, measurements=(*sample.measurements, *metered)))
    text = charts["accuracy against energy of an inference on this-machine"]
    assert "phone.tflite: 3.00\xa0mJ" in text
    assert "tiny.tflite: 4.00\xa0mJ, 86.1% (82.2 to 89.3); FAIL; not on the frontier" in text
    assert text.count("; on the frontier") == 2
    assert "server.onnx" not in text


def test_numbers_that_are_not_measured_say_so_on_their_mark(sample: Manifest) -> None:
    guessed = tuple(
        replace(item, source="estimated") if item.name == "latency_p50_ms" else item for item in sample.measurements
    )
    assert (
        "0.0112\xa0ms (estimated)"
        in _charts(replace(sample, measurements=guessed))["accuracy against latency p50 on this-machine"]
    )
