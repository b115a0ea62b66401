"""What trtexec says, read: synthetic texts in the documented format, and numbers worked out by hand."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from tests.tensorrt.conftest import Install, Start
from toolkit.errors import InputError
from toolkit.tensorrt import trtexec, trtexec_output
from toolkit.tensorrt.trtexec import TimingSpec
from toolkit.tensorrt.trtexec_output import Timing

# synthetic, in the form of 8.2: one percentile, an end-to-end line, warnings that go on
OLD = """&&&& RUNNING TensorRT.trtexec [TensorRT v8201] # trtexec --loadEngine=m.engine
[01/02/2026-15:00:00] [I] Duration: 3s (+ 200ms warm up)
[01/02/2026-15:00:00] [I] Streams: 1
[01/02/2026-15:00:00] [I] Data transfers: Enabled
[01/02/2026-15:00:00] [I] Spin-wait: Disabled
[01/02/2026-15:00:00] [I] CUDA Graph: Disabled
[01/02/2026-15:00:00] [W] [TRT] TensorRT was linked against cuDNN 8.2.1 but loaded cuDNN 8.1.1
[01/02/2026-15:00:01] [W] [TRT] TensorRT was linked against cuDNN 8.2.1 but loaded cuDNN 8.1.1
[01/02/2026-15:00:04] [I] Throughput: 1.24304e+03 qps
[01/02/2026-15:00:04] [I] Latency: min = 3.5 ms, max = 4.5 ms, mean = 4 ms, median = 4.01 ms, percentile(99%) = 4.4 ms
[01/02/2026-15:00:04] [I] End-to-End Host Latency: min = 3 ms, max = 5 ms, mean = 4 ms, median = 4 ms, percentile(99%) = 5 ms
[01/02/2026-15:00:04] [I] Enqueue Time: min = 0.1 ms, max = 3 ms, mean = 2 ms, median = 2.5 ms, percentile(99%) = 2.9 ms
[01/02/2026-15:00:04] [I] GPU Compute Time: min = 2.5 ms, max = 3.5 ms, mean = 3 ms, median = 3.01 ms, percentile(99%) = 3.4 ms
[01/02/2026-15:00:04] [W] * GPU compute time is unstable, with coefficient of variance = 4.75734%.
[01/02/2026-15:00:04] [W]   If not already in use, locking GPU clock frequency or adding --useSpinWait may improve it.
&&&& PASSED TensorRT.trtexec [TensorRT v8201] # trtexec --loadEngine=m.engine
"""  # noqa: E501


def samples(*compute: float, enqueue: float = 0.01) -> tuple[Timing, ...]:
    return tuple(Timing(enqueue, 0.0, item, 0.0, item) for item in compute)


def test_log_of_8_2_is_read() -> None:
    log = trtexec_output.read_log(OLD)
    assert (log.version, log.passed, log.errors, log.throughput_qps) == ("8.2.1", True, (), 1243.04)
    compute = log.summaries["GPU Compute Time"]
    assert (compute.low, compute.high, compute.mean, compute.median) == (2.5, 3.5, 3.0, 3.01)
    assert compute.percentiles == {99.0: 3.4}
    assert set(log.summaries) == {"Latency", "End-to-End Host Latency", "Enqueue Time", "GPU Compute Time"}
    assert log.settings["Data transfers"] == "Enabled"


def test_warnings_come_once_and_whole() -> None:
    assert trtexec_output.read_log(OLD).warnings == (
        "[TRT] TensorRT was linked against cuDNN 8.2.1 but loaded cuDNN 8.1.1",
        "GPU compute time is unstable, with coefficient of variance = 4.75734%."
        " If not already in use, locking GPU clock frequency or adding --useSpinWait may improve it.",
    )


def test_settings_that_were_not_honoured_are_named() -> None:
    log = trtexec_output.read_log(OLD)
    assert trtexec_output.unmet(log, TimingSpec(), transfers=False) == (
        "Data transfers should be off, trtexec says Enabled",
        "Spin-wait should be on, trtexec says Disabled",
        "CUDA Graph should be on, trtexec says Disabled",
    )
    assert trtexec_output.unmet(log, TimingSpec(cuda_graph=False, spin_wait=False), transfers=True) == ()


def test_a_graph_that_could_not_be_captured_is_named() -> None:
    text = OLD.replace("CUDA Graph: Disabled", "CUDA Graph: Enabled").replace(
        "Spin-wait: Disabled", "Spin-wait: Enabled"
    )
    text += (
        "[W] The CUDA graph capture on the stream has failed. The inference will be launched without using CUDA graph\n"
    )
    found = trtexec_output.unmet(trtexec_output.read_log(text), TimingSpec(), transfers=True)
    assert found == ("CUDA Graph should be on, and could not be captured",)


@pytest.mark.parametrize(
    ("count", "percent", "place"),
    [
        (10, 90, 8),  # 1 - 0.9f is 0.10000002: one is left out, though in float64 it is 0.09999999999999998
        (100, 99, 99),  # 1 - 0.99f is 0.00999999: none is left out
        (200, 99, 198),  # 1.9999981: one
        (1000, 99, 990),  # 9.99999: nine
        (101, 99, 99),  # 1.00999903: one
        (100, 50, 49),
        (7, 100, 6),
        (7, 0, 0),
        (1, 99, 0),
    ],
)
def test_percentile_is_trtexecs_own(count: int, percent: float, place: int) -> None:
    assert trtexec_output.percentile([float(value) for value in reversed(range(count))], percent) == place


@given(some.integers(1, 5000), some.sampled_from([0.0, 1.0, 50.0, 90.0, 95.0, 99.0, 99.9, 100.0]))
def test_percentile_agrees_with_numpys_single_precision(count: int, percent: float) -> None:
    one = np.float32(1)
    left_out = int((one - np.float32(percent) / np.float32(100)) * np.float32(count))
    assert trtexec_output.percentile([float(value) for value in range(count)], percent) == max(count - 1 - left_out, 0)


def test_spread_of_five_values_is_worked_out_by_hand() -> None:
    # mean 3, squares 4 + 1 + 0 + 1 + 4 = 10, variance 2
    found = trtexec_output.spread([5.0, 1.0, 4.0, 2.0, 3.0])
    assert (found.count, found.low, found.median, found.mean, found.high) == (5, 1.0, 3.0, 3.0, 5.0)
    assert found.cv == pytest.approx(math.sqrt(2) / 3)
    assert found.p90 == 5.0  # int(0.5) = 0 are left out
    assert trtexec_output.spread([1.0, 2.0, 4.0, 9.0]).median == 3.0


@given(some.lists(some.floats(0.01, 1000), min_size=1, max_size=60))
def test_spread_agrees_with_the_statistics_module(values: list[float]) -> None:
    found = trtexec_output.spread(values)
    assert found.median == pytest.approx(statistics.median(values))
    assert found.cv == pytest.approx(statistics.pstdev(values) / statistics.fmean(values), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("values", [[], [1.0, math.nan], [math.inf]])
def test_spread_of_nothing_is_refused(values: list[float]) -> None:
    with pytest.raises(InputError, match="take the timing again"):
        trtexec_output.spread(values)


def test_samples_are_read_as_written() -> None:
    row = {"startEnqMs": 10.0, "endEnqMs": 10.25, "h2dMs": 0.5, "computeMs": 2.0, "d2hMs": 0.25, "latencyMs": 2.75}
    assert trtexec_output.timings(json.dumps([row])) == (Timing(0.25, 0.5, 2.0, 0.25, 2.75),)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not trtexec's JSON"),
        ("[ { ", "not trtexec's JSON"),
        ("[]", "no samples"),
        ("{}", "no samples"),
        ('[{"computeMs" : 1}]', "sample 0.*not a sample"),
        ('[{"h2dMs" : 0, "computeMs" : nan, "d2hMs" : 0}]', "sample 0.*not a sample"),
        ("[3]", "sample 0.*not a sample"),
    ],
)
def test_broken_samples_are_refused(text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        trtexec_output.timings(text)


def test_profile_keeps_names_that_are_no_json() -> None:
    text = """[
  { "count" : 42 }
, { "name" : "a\\b "q", {x} } , [y]", "timeMs" : 1, "averageMs" : 0.5, "medianMs" : 0.4, "percentage" : 75 }
, { "name" : "old", "timeMs" : 1e-3, "averageMs" : 2.5e-1, "percentage" : 25 }
, { "name" : "empty", "timeMs" : 0, "averageMs" : -nan, "medianMs" : inf, "percentage" : nan }
]"""
    with pytest.raises(ValueError):
        json.loads(text)
    found = trtexec_output.profile(text)
    assert found.iterations == 42
    assert [(layer.name, layer.mean_ms, layer.median_ms, layer.percent) for layer in found.layers] == [
        ('a\\b "q", {x} } , [y]', 0.5, 0.4, 75.0),
        ("old", 0.25, None, 25.0),
    ]
    assert found.unread == ("empty",)


def test_a_profile_cut_short_is_refused() -> None:
    entry = '{ "name" : "a", "timeMs" : 1, "averageMs" : 0.5, "medianMs" : 0.4, "percentage" : 75 }'
    assert len(trtexec_output.profile(f'[ {{ "count" : 3 }}\n, {entry}\n, {entry}').layers) == 2
    with pytest.raises(InputError, match="cut short"):
        trtexec_output.profile(f'[ {{ "count" : 3 }}\n, {entry}\n, {entry[:-20]}')


@pytest.mark.parametrize("text", ["", "[]", '[ { "count" : 3 } ]', '[ { "name" : "x", "timeMs" : 1 } ]'])
def test_no_profile_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="not a profile"):
        trtexec_output.profile(text)


def test_doubts_are_ours_beside_trtexecs() -> None:
    log = trtexec_output.read_log("&&&& PASSED x")
    assert trtexec_output.doubts(log, samples(1.0, 1.0, 1.0)) == ()
    assert trtexec_output.doubts(log, samples(1.0, 1.0, enqueue=0.81))[0].startswith("the host needs 0.81 ms")
    assert trtexec_output.doubts(log, samples(1.0, 1.0, enqueue=0.79)) == ()
    assert "vary by 10.0%" in trtexec_output.doubts(log, samples(0.9, 1.1))[0]
    assert trtexec_output.doubts(log, samples(0.976, 1.024)) == ()  # 2.4 %


def test_enqueue_time_is_the_summarys_since_samples_are_coarse() -> None:
    """2.5 ms of its own summary against the 0.01 ms of six-digit stamps."""
    found = trtexec_output.doubts(trtexec_output.read_log(OLD), samples(3.0, 3.0))
    assert any("needs 2.5 ms" in line for line in found)


def test_passed_is_not_believed_where_an_engine_did_not_load() -> None:
    text = "[E] Engine deserialization failed\n[I] Skipped inference phase\n&&&& PASSED x\n"
    log = trtexec_output.read_log(text)
    assert not log.passed
    assert trtexec_output.errors_in_words(log) == ("Engine deserialization failed",)


def test_a_kernel_too_large_to_be_tried_is_a_doubt_not_a_failure() -> None:
    log = trtexec_output.read_log("[E] 2: OutOfMemory (no further information)\n[W] Skipping tactic 3\n&&&& PASSED x\n")
    assert log.passed
    found = trtexec_output.doubts(log, samples(1.0))
    assert found == ("Skipping tactic 3", "trtexec went on after: 2: OutOfMemory (no further information)")


def test_a_run_that_was_stopped_says_so() -> None:
    log = trtexec_output.read_log("&&&& RUNNING TensorRT.trtexec [TensorRT v100300]\n[I] Starting inference\n")
    assert trtexec_output.errors_in_words(log)[0].startswith("trtexec ended without PASSED")


@pytest.mark.parametrize("version", ["8.2.1", "10.3.0", "11.4.1"])
def test_our_numbers_agree_with_the_summary(version: str, install: Install, start: Start, tmp_path: Path) -> None:
    program = str(install(tensorrt=version, noise=0.05, enqueue_ms=1.9) / "trtexec")
    engine = tmp_path / "m.engine"
    engine.write_text(json.dumps({"tensorrt": version, "dynamic": [], "verbosity": "detailed"}))
    spec = TimingSpec(seconds=0.1, iterations=300)
    times = str(tmp_path / "t.json")
    done = start(trtexec.compute_command(program, spec, engine=str(engine), version=version, times=times))
    log = trtexec_output.read_log(f"{done.stdout}\n{done.stderr}")
    timed = trtexec_output.timings((tmp_path / "t.json").read_text())
    found, given_ = trtexec_output.spread([item.compute_ms for item in timed]), log.summaries["GPU Compute Time"]
    assert len(timed) == 300
    assert found.median == pytest.approx(given_.median, rel=1e-4)
    assert (found.low, found.high) == pytest.approx((given_.low, given_.high), rel=1e-4)
    said = trtexec_output.doubts(log, timed)
    assert any(line.startswith("GPU compute time is unstable") for line in said)  # trtexec's, whole
    assert any("the host may be what is measured" in line for line in said)  # ours
    assert any("clocks not locked" in line for line in said)
