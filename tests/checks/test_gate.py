"""Verdicts and the sentences that explain them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from toolkit.checks.gate import (
    JUDGED_ON,
    NAMES,
    Facts,
    gates_on_answers,
    gather,
    judge,
    run_outcome,
    statistical_gates,
    too_few_processes,
)
from toolkit.core import Budget, Interval, Measurement, Verdict
from toolkit.engine.statistics import Paired, bonferroni, paired_interval


def drop(both: int, lost: int, gained: int, wrong: int) -> Measurement:
    how = {"both_right": both, "lost": lost, "gained": gained, "both_wrong": wrong}
    return Measurement("a", "top1_drop", (lost - gained) / sum(how.values()), "fraction", "measured", "pi", how=how)


def agreement(agree: int, images: int) -> Measurement:
    how = {"agree": agree, "images": images}
    return Measurement("a", "agreement", agree / images, "fraction", "measured", "pi", how=how)


def latency(value: float, *processes: float, source: Any = "measured", name: str = "latency_p50_ms") -> Measurement:
    """One number, and what each process gave."""
    interval = Interval(0.9 * value, 1.1 * value, 0.9, "as its source has it")
    how = {"process_ms": list(processes)} if processes else {}
    return Measurement("a", name, value, "ms", source, "pi", interval, how)


def number(name: str, value: float, source: Any = "computed") -> Measurement:
    return Measurement("a", name, value, "bytes", source)


def one(budget: dict[str, float], comparisons: int = 1, **facts: Measurement) -> Verdict:
    (verdict,) = judge("a", "pi", budget=Budget(**budget), facts=Facts(**facts), comparisons=comparisons)  # type: ignore[arg-type]
    return verdict


# ---------------------------------------------------------------- accuracy


@pytest.mark.parametrize(
    "table, outcome, reason",
    [
        ((8800, 30, 20, 1150), "PASS", "lost 0.1 points (0.0 .. 0.2 at 95%), budget 1.0"),
        ((8800, 20, 60, 1120), "PASS", "gained 0.4 points (loss -0.6 .. -0.2 at 95%), budget 1.0"),
        ((8000, 900, 50, 1050), "FAIL", "lost 8.5 points (7.9 .. 9.1 at 95%), budget 1.0"),
        (
            (160, 9, 2, 29),
            "INCONCLUSIVE",
            "lost 3.5 points (0.1 .. 7.5 at 95%), budget 1.0; about 170 more images would tell",
        ),
    ],
)
def test_accuracy_is_judged_on_the_whole_interval(table: tuple[int, ...], outcome: str, reason: str) -> None:
    verdict = one({"max_accuracy_drop": 0.01}, accuracy_drop=drop(*table))
    assert (verdict.outcome, verdict.gate, verdict.limit) == (outcome, "max_accuracy_drop", 0.01)
    assert verdict.reason == reason
    limits = paired_interval(Paired(*table), 0.95)
    assert verdict.interval is not None
    assert (verdict.interval.low, verdict.interval.high) == (pytest.approx(limits.low), pytest.approx(limits.high))


def test_confidence_is_shared_out_among_all_verdicts() -> None:
    """A loss of 0.4 points on 2,000 images is within one point at 95%, not when it is one of ten verdicts."""
    table = drop(1750, 14, 6, 230)
    alone, among = (one({"max_accuracy_drop": 0.01}, count, accuracy_drop=table) for count in (1, 10))
    assert (alone.outcome, among.outcome) == ("PASS", "INCONCLUSIVE")
    limits = paired_interval(Paired(1750, 14, 6, 230), bonferroni(0.95, 10))
    assert among.interval is not None
    assert (among.interval.low, among.interval.high) == (pytest.approx(limits.low), pytest.approx(limits.high))
    assert among.interval.confidence == pytest.approx(0.995)
    assert "at 99.5%" in among.reason


@pytest.mark.parametrize(
    ("confidence", "text"), [(0.95, "95%"), (0.9995, "99.95%"), (0.999_999, "99.9999%"), (1 - 1e-9, "99.9999999%")]
)
def test_no_confidence_is_said_to_be_certainty(confidence: float, text: str) -> None:
    verdict = one({"max_accuracy_drop": 0.5, "confidence": confidence}, accuracy_drop=drop(1750, 14, 6, 230))
    assert f"at {text})" in verdict.reason


def test_inconclusive_says_how_many_more_images_would_tell() -> None:
    verdict = one({"max_accuracy_drop": 0.01}, accuracy_drop=drop(160, 9, 2, 29))
    tail = verdict.reason.split("; ")[1]
    more = int(tail.removeprefix("about ").removesuffix(" more images would tell").replace(",", ""))
    scale = (200 + more * 1.05) / 200
    assert paired_interval(Paired(160 * scale, 9 * scale, 2 * scale, 29 * scale), 0.95).low > 0.01
    at_limit = one({"max_accuracy_drop": 0.01}, accuracy_drop=drop(160, 4, 2, 34))
    assert at_limit.reason.endswith("too near the budget for more images to tell")


def test_reason_has_decimals_enough_to_tell_the_numbers_from_the_budget() -> None:
    limits = paired_interval(Paired(17_600, 80, 40, 2280), 0.95)
    close = round(float(limits.high), 5) - 0.0001
    verdict = one({"max_accuracy_drop": close}, accuracy_drop=drop(17_600, 80, 40, 2280))
    shown_high = verdict.reason.split(" .. ")[1].split(" ")[0]
    assert verdict.outcome == "INCONCLUSIVE"
    assert shown_high != verdict.reason.split("budget ")[1].split(";")[0]


# ---------------------------------------------------------------- agreement


@pytest.mark.parametrize("agree, outcome", [(1990, "PASS"), (1962, "INCONCLUSIVE"), (1800, "FAIL")])
def test_agreement_is_judged_on_the_whole_interval(agree: int, outcome: str) -> None:
    verdict = one({"min_agreement": 0.98}, agreement=agreement(agree, 2000))
    assert verdict.outcome == outcome
    assert verdict.reason.startswith(f"decides as the original on {agree / 20:.1f}")
    assert ("more images would tell" in verdict.reason) == (outcome == "INCONCLUSIVE")


# ---------------------------------------------------------------- latency

EIGHT = (4.0, 4.1, 4.1, 4.1, 4.2, 4.2, 4.3, 4.4)


@pytest.mark.parametrize(
    "measurement, outcome, reason",
    [
        (latency(4.0, *EIGHT), "PASS", "4.15 ms (4 .. 4.4 at 99.2%), budget 5 ms"),
        (latency(6.0, *(x + 2 for x in EIGHT)), "FAIL", "6.15 ms (6 .. 6.4 at 99.2%), over the budget of 5 ms"),
        (
            latency(4.0, *EIGHT[:-1], 5.1),
            "INCONCLUSIVE",
            "4.15 ms (4 .. 5.1 at 99.2%) lies across the budget of 5 ms; more processes, or a quieter machine, would",
        ),
        (latency(4.0), "INCONCLUSIVE", "4 ms without what each process gave: measure in several processes"),
        (latency(4.0, 4.0), "INCONCLUSIVE", "4 ms in one process: measure in several processes"),
        (latency(1.0, source="estimated"), "INCONCLUSIVE", "only estimated (1 ms, 0.9 .. 1.1), not measured on pi"),
        (latency(9.0, *EIGHT, source="quoted"), "INCONCLUSIVE", "only quoted (9 ms), not measured on pi"),
        (latency(1.0, *EIGHT, source="emulated"), "INCONCLUSIVE", "only emulated (1 ms), not measured on pi"),
        (latency(math.nan), "INCONCLUSIVE", "not measured on pi"),
    ],
)
def test_only_measured_latency_is_judged(measurement: Measurement, outcome: str, reason: str) -> None:
    verdict = one({"max_latency_p50_ms": 5.0}, latency_p50=measurement)
    assert verdict.outcome == outcome
    assert verdict.reason.startswith(reason)


def test_latency_of_several_images_at_once_is_not_judged_as_that_of_one() -> None:
    found = latency(4.0, *EIGHT)
    verdict = one({"max_latency_p50_ms": 5.0}, latency_p50=replace(found, how={**found.how, "batch": 8}))
    assert (verdict.outcome, verdict.reason) == ("INCONCLUSIVE", "4 ms is of 8 images at once: the limit is of one")


def test_one_process_in_a_slow_state_does_no_harm_where_there_are_many() -> None:
    """Three of 16 may lie anywhere at 95%: P(at most 3 of 16 beyond the median) = 697 / 65536."""
    many = (*EIGHT, *EIGHT[:5], 7.0, 8.0, 40.0)
    verdict = one({"max_latency_p50_ms": 5.0}, latency_p50=latency(4.0, *many))
    assert verdict.outcome == "PASS"
    assert verdict.interval is not None
    assert (verdict.interval.low, verdict.interval.high) == (4.1, 4.4)
    assert verdict.interval.confidence == pytest.approx(1 - 2 * 697 / 65536)


@pytest.mark.parametrize(
    ("name", "limit", "outcome"),
    [
        ("p50", 8.9, "PASS"),
        ("p50", 8.7, "INCONCLUSIVE"),
        ("p50", 1.9, "FAIL"),
        ("p90", 89.0, "PASS"),
        ("p90", 80.0, ""),
    ],
)
def test_few_processes_leave_room_for_a_slow_state_that_none_met(name: str, limit: float, outcome: str) -> None:
    """Eight processes cannot hold a typical one at 99.75% (they would at 99.2%): twice as slow is allowed for."""
    found = latency(4.0, *EIGHT, name=f"latency_{name}_ms")
    verdict = one({f"max_latency_{name}_ms": limit}, 20, **{f"latency_{name}": found})
    assert verdict.outcome == (outcome or "INCONCLUSIVE")
    assert verdict.interval is not None
    assert verdict.interval.high == pytest.approx(4.4 * (2 if name == "p50" else 20))
    if verdict.outcome == "INCONCLUSIVE":
        factor = 2 if name == "p50" else 20
        said = (
            f"8 processes are too few for 99.75%, so {factor} times as fast or slow is allowed for; 10 would do without"
        )
        assert said in verdict.reason


def test_accuracy_on_an_imitated_device_is_judged_and_says_so() -> None:
    found = replace(drop(8800, 30, 20, 1150), source="emulated")
    verdict = one({"max_accuracy_drop": 0.01}, accuracy_drop=replace(found, how={**found.how, "emulated": "qemu-user"}))
    assert verdict.outcome == "PASS"
    assert verdict.reason.endswith(", budget 1.0; emulated: qemu-user")
    assert "emulated" not in one({"max_accuracy_drop": 0.01}, accuracy_drop=drop(8800, 30, 20, 1150)).reason


def test_every_gate_knows_the_number_it_is_judged_on() -> None:
    assert set(JUDGED_ON) == set(Budget.model_fields) - {"confidence"}
    assert set(JUDGED_ON.values()) == set(NAMES.values())


# ---------------------------------------------------------------- exact numbers


@pytest.mark.parametrize(
    "budget, facts, outcome, reason",
    [
        ({"max_size_kib": 100}, {"size": number("size_bytes", 102_400)}, "PASS", "100 KiB, budget 100"),
        (
            {"max_size_kib": 100},
            {"size": number("size_bytes", 2_048_512)},
            "FAIL",
            "2,000.5 KiB, over the budget of 100",
        ),
        ({"max_macs": 1e6}, {"macs": number("macs", 999_999)}, "PASS", "999,999 MACs, budget 1,000,000"),
        ({"max_arena_kib": 64}, {"arena": number("arena_kib", 64.5, "measured")}, "FAIL", "64.5 KiB of arena, over"),
        ({"max_arena_kib": 64}, {"arena": number("arena_kib", 4, "estimated")}, "INCONCLUSIVE", "only estimated"),
    ],
)
def test_exact_numbers_are_compared(
    budget: dict[str, float], facts: dict[str, Measurement], outcome: str, reason: str
) -> None:
    verdict = one(budget, **facts)
    assert verdict.outcome == outcome
    assert verdict.reason.startswith(reason)


# ---------------------------------------------------------------- the whole


def test_every_limit_without_a_number_is_inconclusive() -> None:
    names = [name for name in Budget.model_fields if name != "confidence"]
    verdicts = judge("a", "pi", budget=Budget(**dict.fromkeys(names, 0.5)), facts=Facts())
    assert sorted(verdict.gate for verdict in verdicts) == sorted(names)
    assert {verdict.outcome for verdict in verdicts} == {"INCONCLUSIVE"}
    assert all(verdict.reason.startswith("not measured") for verdict in verdicts)
    assert judge("a", "pi", budget=Budget(), facts=Facts()) == ()


def test_gather_takes_what_was_measured_on_the_device_or_on_none() -> None:
    elsewhere = Measurement("a", "latency_p50_ms", 1.0, "ms", "measured", "desk")
    other = Measurement("b", "latency_p50_ms", 2.0, "ms", "measured", "pi")
    unbound = Measurement("a", "agreement", 0.5, "fraction", "measured")
    facts = gather([elsewhere, other, unbound, agreement(9, 10), number("size_bytes", 7), unbound], "a", "pi")
    assert facts == Facts(agreement=agreement(9, 10), size=number("size_bytes", 7))
    assert gather([elsewhere, latency(3), latency(4)], "a", "pi").latency_p50 == latency(4)


def test_statistical_gates_are_counted() -> None:
    assert statistical_gates(Budget(max_accuracy_drop=0.01, max_size_kib=5)) == 1
    assert statistical_gates(Budget(max_accuracy_drop=0.0, min_agreement=0.9)) == 2
    assert statistical_gates(Budget()) == 0
    assert statistical_gates(Budget(max_latency_p50_ms=1, max_latency_p90_ms=1, min_agreement=0.9)) == 3
    assert gates_on_answers(Budget(max_latency_p50_ms=1, max_latency_p90_ms=1, min_agreement=0.9)) == 1


def test_plan_says_how_many_processes_a_latency_gate_needs() -> None:
    """Four verdicts at 95%: 1.25% for each, 0.625% an end; seven processes have 1/128, eight 1/256."""
    timed, other = Budget(max_latency_p50_ms=1, max_accuracy_drop=0.1), Budget(max_accuracy_drop=0.1)
    asked = [("pi", 7, timed), ("pi", 8, timed)]
    assert list(too_few_processes(asked)) == [
        "pi: 7 processes cannot hold a latency gate at the run's confidence: measure.processes = 8 would"
    ]
    assert not list(too_few_processes([("pi", 1, other), ("pi", 0, timed)]))  # 0 measures none, which is said elsewhere


@pytest.mark.parametrize(
    "outcomes, whole",
    [
        (("PASS", "FAIL", "INCONCLUSIVE"), "FAIL"),
        (("PASS", "INCONCLUSIVE"), "INCONCLUSIVE"),
        (("PASS", "PASS"), "PASS"),
        ((), "NO GATE"),
    ],
)
def test_run_outcome_is_the_worst(outcomes: tuple[Any, ...], whole: str) -> None:
    assert run_outcome(Verdict("a", "pi", "g", outcome, 0, 0) for outcome in outcomes) == whole


def test_wrong_pass_of_any_artifact_stays_below_the_level_of_the_run() -> None:
    """Runs of three artifacts, each just as bad as the budget allows: a PASS is wrong in at most 2.5% of runs."""
    rng, runs = np.random.default_rng(0), 20_000
    tables = rng.multinomial(1000, [0.86, 0.025, 0.005, 0.11], (runs, 3))
    passed = paired_interval(Paired(*tables.transpose(2, 0, 1)), bonferroni(0.95, 3)).high <= 0.02
    assert passed.any(axis=1).mean() <= 0.025 + 3 * np.sqrt(0.025 / runs)
    for table, expected in zip(tables[:10, 0], passed[:10, 0], strict=True):  # the gate itself decides the same
        verdict = one({"max_accuracy_drop": 0.02}, 3, accuracy_drop=drop(*map(int, table)))
        assert (verdict.outcome == "PASS") == expected
