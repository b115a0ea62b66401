"""Digits, units and signs."""

from __future__ import annotations

import math

import pytest

from toolkit.core import Interval
from toolkit.report import numbers


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("top1", 0.98056, "98.1%"),
        ("top1", 1.0, "100.0%"),
        ("top1", 0.0, "0.0%"),
        ("agreement", 0.99966, "99.97%"),  # not rounded up to "all of them"
        ("top1_drop", 0.0083, "0.8 points"),
        ("top1_drop", 0.0004, "0.04 points"),
        ("size_bytes", 812, "812 B"),
        ("size_bytes", 27_034, "26.4 KiB"),
        ("size_bytes", 4 * 2**20, "4,096 KiB"),
        ("size_bytes", 17_225_924, "16.4 MiB"),
        ("max_size_kib", 60.0, "60.0 KiB"),
        ("macs", 1_087_000, "1.09 M"),
        ("macs", 9_120, "9,120"),
        ("latency_p50_ms", 0.01123, "0.0112 ms"),
        ("latency_p50_ms", 1234.5, "1,234 ms"),
        ("throughput_per_s", 89.2857, "89.3 /s"),
        ("sqnr_db", 31.24, "31.2 dB"),
        ("sqnr_db", math.inf, "∞"),
        ("max_abs_diff", 0.000_012_3, "1.23e-05"),
        ("top1", math.nan, "not measured"),
        ("top1", None, "not measured"),
    ],
)
def test_show_gives_sensible_digits_and_units(name: str, value: float | None, shown: str) -> None:
    assert numbers.show(name, value).replace(numbers.SPACE, " ") == shown


def test_show_uses_the_given_unit_when_the_name_is_unknown() -> None:
    assert numbers.show("energy_per_inference", 1.5, "mJ") == f"1.50{numbers.SPACE}mJ"


@pytest.mark.parametrize(
    ("name", "change", "shown"),
    [
        ("top1", -0.0694, "−6.9 points"),
        ("top1", 0.0, "0.0 points"),
        ("size_bytes", -293_400, "−287 KiB"),
        ("latency_p50_ms", 0.25, "+0.250 ms"),
        ("top1", None, "not measured"),
    ],
)
def test_show_change_carries_its_sign(name: str, change: float | None, shown: str) -> None:
    assert numbers.show_change(name, change).replace(numbers.SPACE, " ") == shown


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (400.0, 100.0, "4.0× smaller"),
        (100.0, 400.0, "4.0× larger"),
        (100.0, 101.0, "about the same"),
        (1000.0, 10.0, "100× smaller"),
        (0.0, 10.0, ""),
        (None, 10.0, ""),
        (math.nan, 10.0, ""),
    ],
)
def test_factor_says_which_way(before: float | None, after: float, said: str) -> None:
    assert numbers.factor(before, after, words=("smaller", "larger")) == said


def test_show_interval_gives_the_unit_once() -> None:
    interval = Interval(0.9505, 0.9861, 0.95, "Wilson")
    assert numbers.show_interval("top1", interval) == "95.0 to 98.6%"
    assert numbers.show_interval("top1", None) == ""
    assert numbers.show_interval("top1", Interval(math.nan, 1.0, 0.95, "")) == ""


def test_plain_is_ascii_and_has_no_control_characters() -> None:
    assert numbers.plain("−0.3 points ×\x1b[31m ≤\u00a01") == "-0.3 points x?[31m <= 1"


@pytest.mark.parametrize(("value", "shown"), [(9.999, "10.0"), (0.09999, "0.100"), (0, "0"), (123456.7, "123,457")])
def test_significant_rounds_up_to_the_next_power(value: float, shown: str) -> None:
    assert numbers.significant(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(0.84, "0.84 s"), (83.4, "1 min 23 s"), (7800.0, "2 h 10 min")])
def test_seconds_reads_as_a_duration(value: float, shown: str) -> None:
    assert numbers.seconds(value).replace(numbers.SPACE, " ") == shown


@pytest.mark.parametrize(
    "name, value, text",
    [
        ("auc", 0.98765, "0.988"),
        ("auc", 0.99996, "0.99996"),
        ("cosine", 1.0, "1.000"),
        ("cosine", -0.25, "\u22120.250"),
        ("top3", 0.5, "50.0%"),
        ("mae", 12.3456, "12.3"),
        ("mean_average_precision", 0.4916, "49.2%"),
        ("mae_increase", 0.034, "3.4%"),
        ("min_cosine", 0.99, "0.990"),
        ("max_error_increase", 0.05, "5.0%"),
        ("max_class_drop", 0.05, "5.0\u00a0points"),
    ],
)
def test_numbers_of_every_head_have_their_digits(name: str, value: float, text: str) -> None:
    assert numbers.show(name, value) == text


def test_growth_of_an_error_has_its_sign() -> None:
    assert numbers.show_change("mae_increase", 0.034) == "+3.4%"
    assert numbers.show_change("mae_increase", -0.0002) == "\u22120.02%"


def test_extents_and_decibels_have_a_minus_and_no_negative_zero() -> None:
    assert numbers.extent(-1.5, 6.0) == "−1.5 to 6"
    assert tuple(map(numbers.decibels, (-3.04, -0.04, 41.25))) == ("−3.0", "0.0", "41.2")


@pytest.mark.parametrize("text", ["2026-11-22T05:50:42+00:00", "2026-11-22T05:50:42Z"])
def test_moments_read_as_a_reader_writes_them(text: str) -> None:
    assert numbers.moment(text) == "2026-11-22 05:50:42\u00a0UTC"
