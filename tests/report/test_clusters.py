"""What a report says of shared weights: how few values, what they take, and that latency stays."""

from __future__ import annotations

from dataclasses import replace

from toolkit.core import Measurement
from toolkit.report import clusters
from toolkit.report.html import render
from toolkit.report.text import summary_lines
from toolkit.report.view import View
from toolkit.runs import Manifest

FOUND = "16 in each output channel of 4 of 5 layers with more weights there"


def with_clusters(sample: Manifest) -> Manifest:
    how = {"used": "no", "why": "each weight is stored", "rule": "its format", "asked": "16 values, 4 layers"}
    own = Measurement(
        "phone.tflite", "clusters", 0.9, "", "computed", "this-machine", how={**how, "found": FOUND, "in a layer": "23"}
    )
    bound = Measurement("phone.tflite", "entropy_bytes", 51_200, "bytes", "computed", how={"weights_bytes": 102_400})
    return replace(sample, measurements=(*sample.measurements, own, bound))


def test_values_sizes_and_latency_are_said(sample: Manifest) -> None:
    manifest = with_clusters(sample)
    page = render(manifest)
    for words in (f"at most {FOUND}", "latency unchanged", "its format", "estimated bound", "asked for 16 values"):
        assert words in page
    (line,) = (line for line in summary_lines(manifest) if line.startswith("clusters: "))
    assert f"at most {FOUND}, 23 in a layer" in line and "latency unchanged: each weight is stored" in line
    assert "(estimated bound)" in line and "50.0 KiB" in line


def test_latency_that_no_rule_decides_is_said_to_be_open(sample: Manifest) -> None:
    told = with_clusters(sample).measurements
    free = [replace(m, how={**m.how, "used": "open"}) if m.name == "clusters" else m for m in told]
    manifest = replace(sample, measurements=tuple(free))
    (line,) = clusters.lines(View(manifest))
    assert "latency open: each weight is stored" in line and "unchanged" not in line
    assert "latency open" in render(manifest) and "latency unchanged" not in render(manifest)


def test_report_without_clustered_files_says_so_and_the_terminal_nothing(sample: Manifest) -> None:
    assert "No file is of a model whose weights share values." in render(sample)
    assert clusters.lines(View(sample)) == []
    many = [m for m in with_clusters(sample).measurements if m.name == "clusters"] * 10
    assert "2 more" in clusters.lines(View(replace(sample, measurements=tuple(many))))[-1]
