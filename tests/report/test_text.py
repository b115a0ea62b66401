"""The last lines of a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import ModuleType

from toolkit.core import Measurement, Verdict
from toolkit.report.numbers import plain
from toolkit.report.text import next_steps, summary_lines
from toolkit.runs import Manifest


def _row(lines: list[str], name: str) -> list[str]:
    return next(line for line in lines if line.startswith(name)).split()


def test_summary_has_a_row_for_the_original_and_every_artifact(sample: Manifest) -> None:
    lines = summary_lines(sample)
    assert _row(lines, "original ")[1:5] == ["98.9%", "(97.2", "to", "99.6)"]
    row = _row(lines, "phone.tflite")
    assert row[1] == "98.1%"
    assert row[-1] == "INCONCLUSIVE"
    assert "26.4 KiB" in " ".join(row)
    assert "-0.8 points (-2.6 to +0.5)" in " ".join(row)
    assert _row(lines, "original.onnx")[-1] == "reference"


def test_summary_ends_with_the_gain_and_the_outcome(sample: Manifest) -> None:
    won, outcome = summary_lines(sample)[-2:]
    assert won == (
        "server.onnx is 7.5x smaller, needs 3.6x fewer MACs and runs 2.0x faster than the original; "
        "accuracy changes by -0.3 points (-1.7 to +0.9)."
    )
    assert outcome.startswith("FAIL: tiny.tflite fails on accuracy drop; ")


def test_summary_claims_no_speed_when_intervals_overlap(sample: Manifest) -> None:
    wide = tuple(
        replace(m, interval=replace(m.interval, low=0.001, high=0.5)) if m.interval and m.unit == "ms" else m
        for m in sample.measurements
    )
    won = summary_lines(replace(sample, measurements=wide))[-2]
    assert "faster" not in won
    assert "latency p50 is not clearly different" in won


def test_summary_says_when_all_pass(sample: Manifest) -> None:
    good = tuple(Verdict(v.artifact, v.device, v.gate, "PASS", v.value, v.limit) for v in sample.verdicts)
    lines = summary_lines(replace(sample, verdicts=good, outcome="PASS"))
    assert lines[-1] == "PASS: All 3 artifacts hold every gate."


def test_summary_says_when_nothing_was_judged(sample: Manifest) -> None:
    lines = summary_lines(replace(sample, verdicts=(), outcome="NO GATE"))
    assert lines[-1] == "NO GATE: Nothing was judged: the recipe sets no budget."
    assert _row(lines, "phone.tflite")[-2:] == ["no", "gate"]


def test_summary_has_a_row_for_each_device(sample: Manifest) -> None:
    more = Measurement("phone.tflite", "latency_p50_ms", 3.2, "ms", "measured", "pi-4")
    lines = summary_lines(replace(sample, measurements=(*sample.measurements, more)))
    assert "3.20 ms" in " ".join(_row(lines, "phone.tflite on pi-4"))
    assert "0.0112 ms" in " ".join(_row(lines, "phone.tflite on this-machine"))


def test_reasons_name_the_device_where_there_are_several(sample: Manifest) -> None:
    one = Verdict("phone.tflite", "this-machine", "max_accuracy_drop", "FAIL", 0.1, 0.02, None, "lost 10 points")
    unneeded = Verdict("phone.tflite", "", "max_size_kib", "FAIL", 90.0, 60.0, None, "is larger")
    alone = summary_lines(replace(sample, verdicts=(one, unneeded)))
    assert "FAIL  phone.tflite, accuracy drop: lost 10 points" in alone
    lines = summary_lines(replace(sample, verdicts=(one, replace(one, device="pi-4"), unneeded)))
    assert "FAIL  phone.tflite on this-machine, accuracy drop: lost 10 points" in lines
    assert "FAIL  phone.tflite on pi-4, accuracy drop: lost 10 points" in lines
    assert "FAIL  phone.tflite, size: is larger" in lines


def test_summary_says_of_each_number_that_it_was_not_measured(sample: Manifest) -> None:
    more = Measurement("phone.tflite", "latency_p50_ms", 3.2, "ms", "estimated", "pi-4")
    lines = summary_lines(replace(sample, measurements=(*sample.measurements, more)))
    assert "3.20 ms, estimated" in " ".join(_row(lines, "phone.tflite on pi-4"))
    assert "estimated" not in " ".join(_row(lines, "phone.tflite on this-machine"))


def test_summary_of_a_run_that_stopped(samples: ModuleType) -> None:
    assert (
        summary_lines(samples.bare())[-1] == "STOPPED: The run stopped before its end. model.keras: not a Keras file."
    )


def test_summary_prints_no_escape_sequence(hostile: Manifest) -> None:
    assert all(line.isprintable() for line in summary_lines(hostile))


def test_summary_says_why_a_gate_did_not_pass_the_failed_ones_first(sample: Manifest) -> None:
    lines = summary_lines(sample)
    reasons = [line for line in lines if line.startswith(("FAIL  ", "INCONCLUSIVE  "))]
    unsettled = [verdict for verdict in sample.verdicts if verdict.outcome != "PASS"]
    assert len(reasons) == len(unsettled) > 1
    assert [line.split()[0] for line in reasons] == sorted(v.outcome for v in unsettled)
    assert all(any(plain(verdict.reason) in line for line in reasons) for verdict in unsettled)


def test_next_steps_name_the_file_to_deliver_and_never_one_that_failed(sample: Manifest) -> None:
    (line,) = (line for line in next_steps(Path("runs/x"), sample) if line.startswith("deliver:"))
    assert line.split("  (")[0] == "deliver:     edgekit bundle runs/x server.onnx"
    lost = tuple(replace(verdict, outcome="FAIL") for verdict in sample.verdicts)
    assert not [line for line in next_steps(Path("runs/x"), replace(sample, verdicts=lost)) if "bundle" in line]


def test_summary_says_of_speeds_that_nobody_measured_that_they_are_not(sample: Manifest) -> None:
    guessed = tuple(
        replace(m, source="estimated", interval=m.interval and replace(m.interval, low=0.001, high=0.5))
        if m.unit == "ms"
        else m
        for m in sample.measurements
    )
    won = summary_lines(replace(sample, measurements=guessed))[-2]
    assert "latency p50 is not clearly different (not measured on a device)" in won
