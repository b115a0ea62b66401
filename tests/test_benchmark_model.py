"""TFLite's benchmark_model: its options held against a stand-in's own table, its lines as devices printed them."""

from __future__ import annotations

import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from toolkit import benchmark_model
from toolkit.checks import latency, shares
from toolkit.core import Artifact, Measurement, MeasureSpec, Signature
from toolkit.devices import DeviceProfile, DeviceRuntime, open_session
from toolkit.errors import EdgekitError, InputError, StageError, UnavailableError, UnsupportedError

STAND_IN = Path(__file__).parent / "worker" / "fakes" / "benchmark_model.py"
LITERT = DeviceRuntime(use="litert", formats=("tflite",), schemes=("float32",), delegates=("xnnpack", "none"))
# A phone's lines with percentiles, and a Raspberry Pi's without
NEW = """I tflite  : Replacing 112 out of 164 node(s) with delegate (TfLiteXNNPackDelegate) node, yielding 19 partitions
I tflite  : Initialized session in 92.318ms.
count=3 first=235158 curr=200386 min=199462 max=235158 avg=211669 std=16613 p5=199462 median=200386 p95=235158
count=25 first=187533 curr=140990 min=140071 max=195121 avg=145528 std=13583 p5=140545 median=141253 p95=187533
I tflite  : Inference timings in us: Init: 92318, First inference: 235158, Warmup (avg): 211669, Inference (avg): 145528
I tflite  : Memory footprint delta from the start of the tool (MB): init=54.2852 overall=73.4102
"""
OLD = """Created TensorFlow Lite XNNPACK delegate for CPU.
Initialized session in 3.501ms.
count=12 first=156677 curr=33205 min=32578 max=156677 avg=43268.1 std=34197

count=50 first=33228 curr=33130 min=32687 max=33239 avg=33071.8 std=129

Inference timings in us: Init: 3501, First inference: 156677, Warmup (avg): 43268.1, Inference (avg): 33071.8
"""


def test_lines_with_percentiles_give_the_median() -> None:
    found = benchmark_model.parse(NEW)
    assert (found.count, found.median, found.p5, found.p95) == (25, 141.253, 140.545, 187.533)
    assert (found.least, found.largest, found.mean) == (140.071, 195.121, 145.528)
    assert (found.load, found.first, found.footprint_mib) == (92.318, 235.158, 73.4102)
    assert found.kernels == "TfLiteXNNPackDelegate (112 of 164 nodes, 19 partitions)"


def test_lines_without_percentiles_give_no_median() -> None:
    found = benchmark_model.parse(OLD)
    assert (found.count, found.median, found.p5, found.p95) == (50, None, None, None)
    assert (found.mean, found.deviation) == (pytest.approx(33.0718), 0.129)
    assert found.kernels.startswith("XNNPACK (as benchmark_model says")


@pytest.mark.parametrize(
    ("text", "delegate", "error", "words"),
    [
        ("ERROR: Failed to mmap model\nERROR: Benchmarking failed.", "xnnpack", StageError, "Benchmarking failed."),
        ("", "xnnpack", StageError, "printed no timing: nothing"),
        (OLD.replace("XNNPACK", "NNAPI"), "xnnpack", UnavailableError, "does not say that XNNPACK took any operator"),
    ],
)
def test_output_that_does_not_tell_is_an_error(text: str, delegate: str, error: type[EdgekitError], words: str) -> None:
    with pytest.raises(error, match=words):
        benchmark_model.parse(text, delegate)


def test_cores_become_a_mask() -> None:
    asked = benchmark_model.command("/x/benchmark_model", "m.tflite", MeasureSpec(cores=(4, 5, 6, 7)), delegate="none")
    assert asked[:3] == ["taskset", "f0", "/x/benchmark_model"]
    assert "--use_xnnpack=false" in asked


@pytest.mark.parametrize(
    ("spec", "delegate", "words"), [(MeasureSpec(batch=2), "none", "is given no batch"), (MeasureSpec(), "gpu", "gpu")]
)
def test_what_it_has_no_option_for_is_refused(spec: MeasureSpec, delegate: str, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        benchmark_model.command("benchmark_model", "m.tflite", spec, delegate=delegate)


# ---------------------------------------------------------------- against the stand-in


@pytest.fixture
def phone(tmp_path: Path) -> DeviceProfile:
    program = tmp_path / "benchmark_model"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} {STAND_IN} "$@"\n')
    program.chmod(0o755)
    return DeviceProfile(
        name="phone", transport="local", arch="any", python="", benchmark_model=str(program), runtimes=(LITERT,)
    )


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    from tests.worker.conftest import tflite

    path = tmp_path_factory.mktemp("file") / "net.tflite"
    path.write_bytes(tflite(int8=False))
    return Artifact("net.tflite", path, "tflite", "float32", path.stat().st_size, "0", Signature((), ()))


def time(file: Artifact, profile: DeviceProfile, folder: Path, **spec: Any) -> dict[str, Measurement]:
    settings = MeasureSpec(**{"processes": 2, "seconds": 0.02, "warmup_seconds": 0.01, **spec})
    with closing(open_session(profile)) as session:
        found = latency.measure(
            [file],
            session,
            settings,
            profile,
            runtimes={file.name: ("litert", "xnnpack")},
            samples=folder,
            emit=lambda progress: None,
        )
    return {row.name: row for row in found}


def test_device_without_python_is_timed_by_it(file: Artifact, phone: DeviceProfile, tmp_path: Path) -> None:
    rows = time(file, phone, tmp_path)
    p50 = rows["latency_p50_ms"]
    assert (p50.source, p50.device, p50.how["tool"]) == ("measured", "phone", "benchmark_model")
    assert p50.interval is not None and p50.interval.low <= p50.value <= p50.interval.high
    assert p50.how["processes"] in (2, 3, 4) and p50.how["samples"] >= 10
    assert rows["latency_min_ms"].value <= p50.value <= rows["latency_p95_ms"].value
    assert rows["peak_rss_kib"].value == 6.25 * 1024
    assert "latency_p90_ms" not in rows  # it keeps no samples


def test_old_one_gives_no_median_so_none_is_claimed(
    file: Artifact, phone: DeviceProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BENCHMARK_MODEL_AGE", "old")
    rows = time(file, phone, tmp_path)
    assert "latency_p50_ms" not in rows
    assert rows["latency_mean_ms"].value > 0


def test_imitated_phone_gives_emulated_numbers(file: Artifact, phone: DeviceProfile, tmp_path: Path) -> None:
    rows = time(file, phone.model_copy(update={"emulated": "a stand-in"}), tmp_path)
    assert {row.source for row in rows.values()} == {"emulated"}


def test_shares_are_of_the_operators_and_not_of_loading(file: Artifact, phone: DeviceProfile) -> None:
    with closing(open_session(phone)) as session:
        rows, why = shares.measure(file, session, MeasureSpec(seconds=0.01), phone, runtime=("litert", "xnnpack"))
    assert why == ""
    found = {row.name.removeprefix("layer_share:"): row.value for row in rows}
    assert found == pytest.approx({"net/conv/Relu": 0.6, "Delegate/Convolution:1": 0.3, "Identity": 0.1})


def test_missing_program_says_where_to_put_it(file: Artifact, phone: DeviceProfile, tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match="benchmark_model"):
        time(file, phone.model_copy(update={"benchmark_model": "/nowhere/benchmark_model"}), tmp_path)


def test_file_it_cannot_read_is_named(file: Artifact, phone: DeviceProfile, tmp_path: Path) -> None:
    from dataclasses import replace

    bad = tmp_path / "bad.tflite"
    bad.write_bytes(b"not a model at all")
    with pytest.raises(InputError, match=r"bad.tflite: benchmark_model ended with exit code 1: .*Benchmarking failed"):
        time(replace(file, name="bad.tflite", path=bad), phone, tmp_path)


def test_core_that_is_not_there_is_said(file: Artifact, phone: DeviceProfile, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^phone: the cores that were asked for cannot be had: taskset: .*[^']\. Fix"):
        time(file, phone, tmp_path, cores=(1000,))


def test_other_files_than_tflite_are_refused(file: Artifact, phone: DeviceProfile, tmp_path: Path) -> None:
    from dataclasses import replace

    with pytest.raises(UnsupportedError, match=r"benchmark_model runs \.tflite files, not onnx"):
        time(replace(file, format="onnx"), phone, tmp_path)


def test_option_that_it_does_not_know_is_no_measurement(
    file: Artifact, phone: DeviceProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = benchmark_model.command

    def newer(*given: Any, **named: Any) -> list[str]:
        return [*asked(*given, **named), "--use_profiler=true"]

    monkeypatch.setattr(benchmark_model, "command", newer)
    with pytest.raises(UnavailableError, match=r"does not know --use_profiler=true\. Fix: take a newer one"):
        time(file, phone, tmp_path)


def test_old_table_without_start_and_names_of_commas_are_read() -> None:
    text = "node type, first, avg_ms, %, cdf%, mem KB, times called, name\nADD, 0.1, 0.2, 100%, 100%, 0, 1, [a, b]\n"
    (row,) = benchmark_model.operators(text)
    assert (row.name, row.kind, row.share) == ("a, b", "ADD", 1.0)
    with pytest.raises(StageError, match="wrote no profile by operator"):
        benchmark_model.operators("node type, first, avg_ms\n")
