"""Two manifests made by hand, side by side."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from toolkit import compare as comparing
from toolkit.core import Interval, Measurement, Verdict
from toolkit.runs import DataRecord, Manifest

HOST = {"name": "bench", "cpu": "A72", "cores": 4, "python": "3.11.7"}
TEST = DataRecord("test", 100, "sha256:aa", "folder")


def made(*measurements: Measurement, **fields: Any) -> Manifest:
    base: dict[str, Any] = {"name": "run", "status": "done", "started": "", "recipe": {}, "seed": 0, "versions": {}}
    return Manifest(
        **{**base, "host": HOST, "data": (TEST,), "outcome": "PASS", "measurements": measurements, **fields}
    )


def number(name: str, value: float, low: float | None = None, high: float | None = None, **rest: Any) -> Measurement:
    interval = None if low is None or high is None else Interval(low, high, 0.95, "hand")
    return Measurement("a.tflite", name, value, "", rest.pop("source", "measured"), interval=interval, **rest)


def only(before: Manifest, after: Manifest) -> comparing.Change:
    (change,) = comparing.compare(before, after).measurements
    return change


def test_dotted_keys_name_what_has_a_name_and_number_the_rest() -> None:
    tree = {"passes": [{"use": "prune"}, {"use": "distill"}], "variants": [{"name": "phone", "export": ["tflite"]}]}
    assert comparing.dotted(tree) == {
        "passes.0.use": "prune",
        "passes.1.use": "distill",
        "variants.phone.name": "phone",
        "variants.phone.export.0": "tflite",
    }


def test_recipe_versions_and_data_differences_are_named() -> None:
    before = made(recipe={"budget": {"max_size_kib": 60}, "seed": 0}, versions={"keras": "3.15"})
    after = made(recipe={"budget": {"max_size_kib": 50}, "seed": 0}, versions={"keras": "3.16", "onnx": "1.23"})
    found = comparing.compare(before, replace(after, data=(replace(TEST, fingerprint="sha256:bb"),)))
    assert found.recipe == (comparing.Difference("budget.max_size_kib", "60", "50"),)
    assert found.versions == (comparing.Difference("keras", "3.15", "3.16"), comparing.Difference("onnx", "", "1.23"))
    assert found.data == (comparing.Difference("test.fingerprint", "sha256:aa", "sha256:bb"),)


def test_change_interval_is_movers() -> None:
    # d = 4; low = 4 - sqrt(3^2 + 4^2) = -1; high = 4 + sqrt(6^2 + 8^2) = 14
    old = number("latency_p50_ms", 10.0, 2.0, 14.0)
    new = number("latency_p50_ms", 14.0, 11.0, 20.0)
    interval = comparing.change_interval(old, new)
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx((-1.0, 14.0))


def test_change_interval_takes_the_lower_confidence() -> None:
    old = replace(number("top1", 0.5), interval=Interval(0.4, 0.6, 0.99, "hand"))
    found = comparing.change_interval(old, number("top1", 0.5, 0.4, 0.6))
    assert found is not None
    assert found.confidence == 0.95


@pytest.mark.parametrize(
    ("name", "old", "new", "judgement"),
    [
        ("latency_p50_ms", (10, 9.9, 10.1), (12, 11.9, 12.1), "worse"),
        ("latency_p50_ms", (10, 9.9, 10.1), (8, 7.9, 8.1), "better"),
        ("latency_p50_ms", (10, 8, 12), (11, 9, 13), "unclear"),
        ("latency_p50_ms", (10, None, None), (11, None, None), "unclear"),
        ("throughput_per_s", (100, 99, 101), (120, 119, 121), "better"),
        ("top1", (0.9, 0.85, 0.93), (0.6, 0.55, 0.65), "worse"),
        ("top1", (0.90, 0.85, 0.93), (0.89, 0.84, 0.92), "unclear"),
        ("top1", (0.9, 0.85, 0.93), (0.9, 0.85, 0.93), "same"),
        ("size_bytes", (1000, None, None), (1001, None, None), "worse"),
        ("size_bytes", (1000, None, None), (1000, None, None), "same"),
        ("sqnr_db", (30, None, None), (31, None, None), "changed"),
        ("sqnr_db", (math.inf, None, None), (math.inf, None, None), "same"),
    ],
)
def test_changes_are_judged(name: str, old: Any, new: Any, judgement: str) -> None:
    assert only(made(number(name, *old)), made(number(name, *new))).judgement == judgement


def test_no_latency_verdict_on_too_few_processes() -> None:
    """Two processes hold a typical one half of the time, whatever their distance."""
    few = [replace(number("latency_p50_ms", at), interval=Interval(at, at + 0.1, 0.5, "two")) for at in (10.0, 12.0)]
    change = only(made(few[0]), made(few[1]))
    assert (change.judgement, change.reason) == (
        "unclear",
        "its interval holds at 50% only: measure in more processes",
    )


def test_no_latency_verdict_across_hosts_but_size_is_judged() -> None:
    elsewhere = {**HOST, "cpu": "A76"}
    pair = (number("latency_p50_ms", 10, 9.9, 10.1), number("size_bytes", 100))
    faster = (number("latency_p50_ms", 5, 4.9, 5.1), number("size_bytes", 90))
    found = comparing.compare(made(*pair), made(*faster, host=elsewhere))
    assert [item.judgement for item in found.measurements] == ["not compared", "better"]
    assert found.measurements[0].reason == "the hosts differ"
    for words in (comparing.text(found), comparing.markdown(found)):
        assert "The hosts differ (cpu A72 -> A76): no verdict on latency." in words.replace("&gt;", ">")
        assert "5.00" not in words.replace("5.00\u00a0ms", "").replace("5.00 ms", "")  # no difference of the two


def test_another_python_is_the_same_host() -> None:
    assert comparing.compare(made(), made(host={**HOST, "python": "3.12.1"})).same_host is True


def test_no_latency_verdict_when_a_run_names_no_host() -> None:
    change = only(made(number("load_ms", 1, 0.9, 1.1), host={}), made(number("load_ms", 9, 8.9, 9.1), host={}))
    assert change.judgement == "not compared"


def test_accuracy_is_not_compared_on_other_images() -> None:
    other = (replace(TEST, fingerprint="sha256:bb"),)
    change = only(made(number("top1", 0.9, 0.8, 0.95)), made(number("top1", 0.1, 0.05, 0.2), data=other))
    assert (change.judgement, change.reason) == ("not compared", "the test images differ")


def test_what_was_measured_is_not_compared_with_what_was_estimated() -> None:
    change = only(made(number("macs", 10, source="computed")), made(number("macs", 9, source="estimated")))
    assert change.judgement == "not compared"


def test_emulated_latency_gets_no_verdict() -> None:
    slow, fast = (number("latency_p50_ms", v, v - 0.1, v + 0.1, source="emulated") for v in (10, 5))
    assert only(made(slow), made(fast)).reason == "emulated, not measured on a device"


def test_a_number_missing_from_one_run_says_from_which() -> None:
    assert only(made(), made(number("top1", 0.5))).reason == "not measured in the first run"
    assert only(made(number("top1", 0.5)), made(number("top1", math.nan))).reason == "not measured in the second run"


def test_other_settings_are_named_beside_the_judgement() -> None:
    old = number("latency_p50_ms", 10, 9.9, 10.1, how={"threads": 1})
    new = number("latency_p50_ms", 5, 4.9, 5.1, how={"threads": 4})
    change = only(made(old), made(new))
    assert (change.judgement, change.reason) == ("better", "threads: 1 to 4")


def test_verdicts_that_turned_are_listed() -> None:
    def judged(outcome: Any) -> Manifest:
        return made(verdicts=(Verdict("a.tflite", "pi", "max_size_kib", outcome, 1.0, 2.0),), outcome=outcome)

    found = comparing.compare(judged("PASS"), judged("FAIL"))
    assert found.outcomes == ("PASS", "FAIL")
    assert found.verdicts == (comparing.Difference("a.tflite max_size_kib on pi", "PASS", "FAIL"),)
    assert "a.tflite max_size_kib on pi: PASS -> FAIL" in comparing.text(found)


def test_json_has_no_infinity() -> None:
    found = comparing.compare(made(number("sqnr_db", math.inf)), made(number("sqnr_db", 30.0)))
    text = json.dumps(comparing.as_dict(found), allow_nan=False)
    assert json.loads(text)["measurements"][0]["before"] is None


def test_markdown_lets_no_name_break_out() -> None:
    bad = "x`|@someone<img src=x>\n# head"
    hostile = made(
        Measurement(bad, bad, 1.0, bad, "measured", bad, None, {bad: bad}), name=bad, recipe={bad: bad}, host={bad: bad}
    )
    other = made(Measurement(bad, bad, 2.0, bad, "measured", bad), recipe={bad: "y"}, host={**HOST, bad: "z"})
    timed = comparing.Retimed(bad, bad, 1.0, 2.0, 2.0, Interval(1.9, 2.1, 0.95, bad), 20, "worse")
    found = replace(comparing.compare(hostile, other), retimed=(timed,), not_retimed={bad: bad})
    text = comparing.markdown(found, worse=(bad.replace("\n", " "),), untold=(bad,))
    outside = "".join(part for line in text.splitlines() for part in line.split("`")[::2])  # what is in no code span
    assert "@" not in outside
    assert "<img" not in outside
    assert not [line for line in text.splitlines() if line.startswith("# ")]
    bars = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("| ")}
    assert bars == {6}  # five cells in both tables
    assert text.count("| worse |") == 0
    assert "▼ worse" in text


def test_markdown_fits_a_comment_and_closes_its_folds() -> None:
    before = made(*(Measurement(f"stage-{n:05}", "macs", 1.0, "", "computed") for n in range(3000)))
    after = made(*(Measurement(f"stage-{n:05}", "macs", 2.0, "", "computed") for n in range(3000)))
    text = comparing.markdown(comparing.compare(before, after))
    assert len(text) < 65_536
    assert text.count("<details>") == text.count("</details>") == 1
    assert "Cut short" in text


def test_text_counts_what_is_the_same() -> None:
    run = made(number("size_bytes", 10), number("macs", 5))
    words = comparing.text(comparing.compare(run, run))
    assert words.endswith("2 of 2 measurements are the same.")
    assert words.isascii()


def test_text_has_no_escape_sequence() -> None:
    found = comparing.compare(made(name="\x1b[31m"), made(recipe={"\x1b": "\x07"}))
    assert all(char.isprintable() or char == "\n" for char in comparing.text(found))


@pytest.mark.parametrize("name", ["f1", "mean_average_precision", "mae", "a_metric_of_ones_own"])
def test_metrics_are_compared_on_the_same_test_images_only(name: str) -> None:
    other = DataRecord("test", 100, "sha256:bb", "folder")
    change = only(made(number(name, 0.5)), made(number(name, 0.6), data=(other,)))
    assert (change.judgement, change.reason) == ("not compared", "the test images differ")


def test_an_error_that_grows_is_worse_and_a_score_that_grows_is_better() -> None:
    for name, judgement in (("mae", "worse"), ("ece", "worse"), ("retrieval_at_1", "better"), ("cosine", "better")):
        change = only(made(number(name, 0.2, 0.19, 0.21)), made(number(name, 0.6, 0.59, 0.61)))
        assert change.judgement == judgement, name


@pytest.mark.parametrize(
    "name", ["latency_p50_ms", "throughput_per_s", "gpu_compute_p50_ms", "energy_per_inference_mj"]
)
def test_power_modes_that_differ_leave_no_verdict_on_speed(name: str) -> None:
    old = number(name, 10, 9.9, 10.1, device="jetson-orin-nano-8", how={"power_mode": "15W"})
    new = replace(number(name, 5, 4.9, 5.1, device="jetson-orin-nano-8"), how={"power_mode": "MAXN_SUPER"})
    change = only(made(old), made(new))
    assert (change.judgement, change.reason) == ("not compared", "the power modes differ: 15W and MAXN_SUPER")
    text = comparing.text(comparing.compare(made(old), made(new)))
    assert "not compared: the power modes differ: 15W and MAXN_SUPER" in text
    same = only(made(old), made(replace(new, how={"power_mode": "15W"})))
    assert same.judgement == ("worse" if name == "throughput_per_s" else "better")


def test_a_power_mode_that_one_run_lacks_leaves_no_verdict() -> None:
    old = number("latency_p50_ms", 10, 9.9, 10.1, device="jetson-orin-nano-8", how={"power_mode": "15W"})
    change = only(made(old), made(replace(old, how={})))
    assert change.judgement == "not compared"
    assert change.reason == "the power mode of one run is not known, of the other it is 15W"


def test_power_modes_say_nothing_of_accuracy() -> None:
    old = number("top1", 0.9, 0.85, 0.93, how={"power_mode": "15W"})
    new = number("top1", 0.6, 0.55, 0.65, how={"power_mode": "MAXN"})
    assert only(made(old), made(new)).judgement == "worse"
