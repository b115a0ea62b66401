"""What a report says of zeros in weights: by rule and by the clock, whichever way the clock goes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from toolkit.core import Interval, Measurement
from toolkit.report import zeros
from toolkit.report.html import render
from toolkit.report.text import summary_lines
from toolkit.report.view import View
from toolkit.runs import Manifest

HERE = "this-machine"


def counted(subject: str, packed: str = "0 of 4 weights", used: str = "no") -> Measurement:
    how = {"used": used, "why": "all weights are multiplied", "rule": "its source", "packed": packed, "2:4": "0 of 4"}
    return Measurement(subject, "zeros", 0.8, "", "computed", HERE, how=how)


def timed(subject: str, p50: float, spread: float = 0.01) -> Measurement:
    around = Interval(p50 * (1 - spread), p50 * (1 + spread), 0.95, "bootstrap")
    return Measurement(subject, "latency_p50_ms", p50, "ms", "measured", HERE, around)


def with_packed(sample: Manifest, dense: float, packed: float, spread: float = 0.01) -> Manifest:
    """The sample's phone.tflite, with zeros, and its packed twin of another variant."""
    phone = next(item for item in sample.artifacts if item.name == "phone.tflite")
    twin = replace(phone, name="packed.tflite", variant="packed", size_bytes=phone.size_bytes // 2)
    kept = [m for m in sample.measurements if (m.subject, m.name) != ("phone.tflite", "latency_p50_ms")]
    more = [counted("phone.tflite"), counted("packed.tflite", "4 of 4 weights")]
    times = [timed("phone.tflite", dense, spread), timed("packed.tflite", packed, spread)]
    return replace(sample, artifacts=(*sample.artifacts, twin), measurements=(*kept, *more, *times))


@pytest.mark.parametrize(
    ("dense", "packed", "words"),
    [
        (1.0, 1.5, "1.5× slower than phone.tflite, which is dense"),
        (1.0, 0.5, "2.0× faster than phone.tflite, which is dense"),
        (1.0, 1.01, "about the same as phone.tflite, which is dense"),
    ],
)
def test_packed_file_is_set_beside_the_dense_one_of_the_same_weights(
    sample: Manifest, dense: float, packed: float, words: str
) -> None:
    manifest = with_packed(sample, dense, packed)
    row = next(row for row in zeros.rows(View(manifest)) if row.artifact.name == "packed.tflite")
    assert (row.used, row.speed) == ("not used", words)
    page = render(manifest)
    assert words in page and "its source" in page and "packed: 4 of 4 weights" in page
    line = next(line for line in summary_lines(manifest) if line.startswith("zeros: packed.tflite"))
    assert "not used: all weights are multiplied" in line and words.replace("×", "x") in line


def test_no_speed_is_claimed_where_intervals_overlap(sample: Manifest) -> None:
    *_, row = zeros.rows(View(with_packed(sample, 1.0, 1.5, spread=0.5)))
    assert row.speed == "not clearly faster or slower than phone.tflite, which is dense"


def test_other_weights_are_nothing_to_compare_with(sample: Manifest) -> None:
    manifest = with_packed(sample, 1.0, 1.5)
    twin = replace(manifest.artifacts[-1], stage="01-prune")
    rows = zeros.rows(View(replace(manifest, artifacts=(*manifest.artifacts[:-1], twin))))
    assert {row.speed for row in rows} == {"no dense file of the same network was timed beside it"}


def test_dense_zeros_are_set_beside_the_original_where_its_work_is_the_same(sample: Manifest) -> None:
    reference = next(item for item in sample.artifacts if item.name == "original.onnx")
    own = replace(reference, name="sparse.onnx", variant="sparse")
    kept = [m for m in sample.measurements if (m.subject, m.name) != ("original.onnx", "latency_p50_ms")]
    times = [timed("original.onnx", 1.0), timed("sparse.onnx", 1.2), counted("sparse.onnx")]
    manifest = replace(sample, artifacts=(*sample.artifacts, own), measurements=(*kept, *times))
    assert [row.speed for row in zeros.rows(View(manifest))] == ["1.2× slower than original.onnx, which is dense"]
    fewer = Measurement("sparse.onnx", "macs", 7, "", "computed")
    cut = replace(manifest, measurements=(*manifest.measurements, fewer))
    assert "no dense file" in next(zeros.rows(View(cut))).speed


def test_report_without_sparse_files_says_so_and_the_terminal_nothing(sample: Manifest) -> None:
    assert "No file has many zeros in its weights." in render(sample)
    assert zeros.lines(View(sample)) == []
    many = replace(sample, measurements=tuple(counted("phone.tflite") for _ in range(10)))
    assert len(zeros.lines(View(many))) == 9 and "2 more" in zeros.lines(View(many))[-1]
