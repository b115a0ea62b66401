"""What `bench` and `eval` print, and what `bench` is refused for."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from toolkit.cli import cli
from toolkit.core import Measurement
from toolkit.measuring import measurement_lines


def lines(*rows: Measurement) -> list[str]:
    return list(measurement_lines({"measurements": [asdict(row) for row in rows]}))


def row(subject: str = "a.tflite", name: str = "latency_p50_ms", **how: Any) -> Measurement:
    return Measurement(subject, name, 2.0, "ms", "measured", "d", how=how)


def test_line_says_how_its_number_was_taken_and_what_the_file_ran_on_is_said_once() -> None:
    both = {"runtime": "litert", "threads": 1}
    found = lines(row(**both, estimator="best"), row(name="load_ms", **both, estimator="smallest"))
    assert found == [
        "a.tflite  latency_p50_ms  2.00 ms  [measured: best]",
        "a.tflite  load_ms  2.00 ms  [measured: smallest]",
        "how: runtime litert, threads 1",
    ]


def test_each_file_has_a_line_of_what_it_ran_on() -> None:
    found = lines(row(runtime="litert", threads=1), row("b.onnx", runtime="onnxruntime", threads=1))
    assert found[2:] == ["how (a.tflite): runtime litert, threads 1", "how (b.onnx): runtime onnxruntime, threads 1"]


def test_sweep_says_threads_of_each_line() -> None:
    found = lines(row(threads=1, samples=9), row(threads=2, samples=7))
    assert found == [
        "a.tflite  1 thread  latency_p50_ms  2.00 ms  [measured]",
        "a.tflite  2 threads  latency_p50_ms  2.00 ms  [measured]",
        "how (a.tflite  1 thread): threads 1, samples 9",
        "how (a.tflite  2 threads): threads 2, samples 7",
    ]


def test_what_is_true_of_one_number_alone_stands_apart() -> None:
    layer = row(name="layer_share:x", runtime="litert", kind="CONV_2D", estimator="its profiler")
    power = row(name="energy_per_inference_mj", runtime="litert", sensor="rapl", kind="counter", idle_mw=5.0)
    assert lines(row(runtime="litert", threads=1), layer, power)[3:] == [
        "how: runtime litert, threads 1",
        "how (energy_per_inference_mj): sensor rapl, kind counter, idle_mw 5.0",
    ]


def test_hostile_file_name_stays_one_line() -> None:
    found = lines(row("a\nb\x1b[31m.tflite", threads=1))
    assert found[0].startswith(r"'a\nb\x1b[31m.tflite'  latency_p50_ms")
    assert all(line.isprintable() for line in found)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--threads", "1,1"], "give each number once, got '1,1'"),
        (["--cores", "0,0"], "give each number once, got '0,0'"),
        (["--threads", "1,x"], "give whole numbers with commas between them"),
        (["--sustained", "nan"], "give a number, got nan"),
    ],
)
def test_values_that_cannot_be_are_refused(options: list[str], problem: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["bench", str(tmp_path / "a.tflite"), *options])
    assert (result.exit_code, problem in result.stderr) == (2, True), result.stderr
