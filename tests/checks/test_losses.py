"""What other heads lose, measured from outputs worked by hand, and the verdicts on it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from toolkit.checks import gate
from toolkit.checks.accuracy import Accuracy, Predictions, measure_accuracy
from toolkit.checks.evidence import Evidence
from toolkit.checks.parity import measure_parity
from toolkit.core import Budget, Measurement, Verdict
from toolkit.engine.statistics import Paired, bonferroni, paired_interval
from toolkit.metrics.classification import TopK

RNG = np.random.default_rng(0)


class Targets:
    """A split of which only the targets count."""

    name, fingerprint = "test", "f00d"

    def __init__(self, labels: Any, classes: int, task: str = "classes") -> None:
        self.labels, self.task = np.asarray(labels), task
        self.classes = tuple(f"c{place}" for place in range(classes))

    def __len__(self) -> int:
        return len(self.labels)


def measured(first: Any, second: Any, data: Any, head: Any) -> tuple[dict[str, Measurement], Accuracy]:
    original = Predictions("original", np.asarray(first, np.float32), head)
    other = Predictions("a", np.asarray(second, np.float32), head, "pi")
    accuracy = measure_accuracy(other, data, original=original)
    found = (*accuracy.measurements, *measure_parity(other, original, data))
    return {measurement.name: measurement for measurement in found}, accuracy


def verdict(accuracy: Accuracy, budget: dict[str, float], comparisons: int = 1) -> Verdict:
    facts = gate.gather(accuracy.measurements, "a", "pi")
    facts = gate.Facts(**{**facts.__dict__, "evidence": accuracy.evidence})
    (found,) = gate.judge("a", "pi", budget=Budget(**budget), facts=facts, comparisons=comparisons)  # type: ignore[arg-type]
    return found


# ---------------------------------------------------------------- the worst class


def decided(correct: list[tuple[int, int]], classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels and one-hot answers: for each class (right, wrong) images, wrong ones decided as the next class."""
    labels, answers = [], []
    for place, (right, wrong) in enumerate(correct):
        labels += [place] * (right + wrong)
        answers += [place] * right + [(place + 1) % classes] * wrong
    return np.array(labels), np.eye(classes)[answers]


def classes_that_lose(lost: list[int], images: int) -> tuple[dict[str, Measurement], Accuracy]:
    size = len(lost)
    labels, original = decided([(images, 0)] * size, size)
    _, other = decided([(images - count, count) for count in lost], size)
    return measured(original, other, Targets(labels, size), "softmax")


def test_the_class_that_lost_most_is_measured_and_named() -> None:
    found, accuracy = classes_that_lose([1, 8, 0], 40)
    assert found["class_drop"].value == pytest.approx(8 / 40)
    assert found["class_drop"].how["class"] == "c1"
    assert found["top1_drop"].value == pytest.approx(9 / 120)
    assert accuracy.evidence.classes is not None
    assert accuracy.evidence.classes.table(1) == Paired(32, 8, 0, 0)


@pytest.mark.parametrize(
    "lost, images, outcome, words",
    [
        ([1, 2, 0], 400, "PASS", ["class 'c1' (400 images)", "lost 0.5 points", "all 3 classes at once"]),
        ([1, 80, 0], 200, "FAIL", ["class 'c1' (200 images)", "lost 40.0 points"]),
        ([60, 80, 0], 200, "FAIL", ["'c1'", "1 more over the budget"]),
        ([0, 3, 0], 40, "INCONCLUSIVE", ["'c1'", "2 more undecided", "more images of 'c1' would tell"]),
    ],
)
def test_the_worst_class_is_judged_on_all_intervals_at_once(
    lost: list[int], images: int, outcome: str, words: list[str]
) -> None:
    _, accuracy = classes_that_lose(lost, images)
    found = verdict(accuracy, {"max_class_drop": 0.05})
    assert (found.outcome, found.gate) == (outcome, "max_class_drop")
    assert all(word in found.reason for word in words), found.reason
    each = paired_interval(Paired(*(np.array(cells, float) for cells in _cells(lost, images))), bonferroni(0.95, 3))
    assert found.interval is not None
    assert (found.interval.low, found.interval.high) == (pytest.approx(each.low.max()), pytest.approx(each.high.max()))


def _cells(lost: list[int], images: int) -> tuple[list[int], ...]:
    return [images - count for count in lost], lost, [0] * len(lost), [0] * len(lost)


def test_a_class_without_images_is_no_class_to_judge() -> None:
    labels, original = decided([(50, 0), (50, 0), (0, 0)], 3)
    _, accuracy = measured(original, original, Targets(labels, 3), "softmax")
    assert accuracy.evidence.classes is not None
    assert accuracy.evidence.classes.names == ("c0", "c1")
    assert accuracy.left_out == dict.fromkeys(
        ("precision", "recall", "f1", "f1_weighted"), "class 2: without images"
    ) | {"auc": "class 2: has none of the images, or all"}


def test_class_verdicts_share_the_confidence_of_the_run() -> None:
    _, accuracy = classes_that_lose([1, 2, 0], 150)
    alone, among = (verdict(accuracy, {"max_class_drop": 0.07}, count) for count in (1, 20))
    assert alone.interval is not None
    assert among.interval is not None
    assert among.interval.high > alone.interval.high
    assert among.interval.confidence == pytest.approx(1 - 0.05 / 20)


# ---------------------------------------------------------------- several labels


def labels_data(images: int = 300) -> tuple[np.ndarray, np.ndarray]:
    truth = (RNG.random((images, 3)) < 0.3).astype(np.uint8)
    return truth, np.clip(0.35 * truth + 0.5 * RNG.random(truth.shape), 0, 1)


def test_labels_lose_mean_average_precision() -> None:
    truth, scores = labels_data()
    worse = RNG.random(scores.shape)
    found, accuracy = measured(scores, worse, Targets(truth, 3, "labels"), "sigmoids")
    original = measure_accuracy(Predictions("o", scores, "sigmoids"), Targets(truth, 3, "labels")).measurements[0]
    drop = found["mean_average_precision_drop"]
    assert drop.value == pytest.approx(original.value - found["mean_average_precision"].value, abs=1e-6)
    right = ((scores > 0.5) == truth).mean(axis=0) - ((worse > 0.5) == truth).mean(axis=0)
    assert found["class_drop"].value == pytest.approx(right.max())
    failed = verdict(accuracy, {"max_accuracy_drop": 0.02})
    assert failed.outcome == "FAIL"
    assert failed.reason.startswith("lost ")
    assert failed.interval is not None
    assert "bootstrap" in failed.interval.method
    _, same = measured(scores, scores, Targets(truth, 3, "labels"), "sigmoids")
    assert verdict(same, {"max_accuracy_drop": 0.02}).outcome == "PASS"


def test_few_images_are_not_resampled_to_a_verdict() -> None:
    truth, scores = labels_data(29)
    truth[0] = 1
    _, accuracy = measured(scores, scores, Targets(truth, 3, "labels"), "sigmoids")
    found = verdict(accuracy, {"max_accuracy_drop": 0.02})
    assert (found.outcome, found.reason) == ("INCONCLUSIVE", "29 images are too few to resample; 30 or more would do")


def test_labels_nobody_has_leave_nothing_to_judge() -> None:
    _, scores = labels_data(40)
    found, accuracy = measured(scores, scores, Targets(np.zeros((40, 3), np.uint8), 3, "labels"), "sigmoids")
    assert "mean_average_precision" not in found
    assert accuracy.left_out["mean_average_precision"] == "label 0, 1, 2: no image has it"
    assert verdict(accuracy, {"max_accuracy_drop": 0.02}).reason == "not measured"
    assert all(np.isfinite(measurement.value) for measurement in found.values())


# ---------------------------------------------------------------- embeddings and numbers


def embeddings(images: int = 200) -> tuple[np.ndarray, np.ndarray]:
    labels = np.arange(images) % 4
    return labels, np.eye(4)[labels] + 0.15 * RNG.normal(size=(images, 4))


def test_embeddings_are_judged_by_retrieval_likeness_and_neighbours() -> None:
    labels, points = embeddings()
    near, far = points + 0.01 * RNG.normal(size=points.shape), RNG.normal(size=points.shape)
    data = Targets(labels, 4)
    found, good = measured(points, near, data, "embedding")
    assert found["retrieval_at_1_drop"].how["both_right"] == 200
    assert found["cosine"].value > 0.99
    assert 0 < found["agreement"].value < 1
    _, bad = measured(points, far, data, "embedding")
    for budget in ({"max_accuracy_drop": 0.05}, {"min_cosine": 0.9}, {"max_class_drop": 0.2}):
        assert (verdict(good, budget).outcome, verdict(bad, budget).outcome) == ("PASS", "FAIL"), budget
    assert verdict(bad, {"min_cosine": 0.9}).reason.startswith("mean cosine with the original's embedding ")


def test_embeddings_without_classes_are_compared_with_the_original_alone() -> None:
    _, points = embeddings(60)
    found, accuracy = measured(points, points * 3, Targets(RNG.random((60, 2)), 2, "values"), "embedding")
    assert found["cosine"].value == pytest.approx(1)
    assert {name for name in found if "retrieval" in name or "drop" in name} == set()
    assert accuracy.per_class == ()


@pytest.mark.parametrize(
    "scale, outcome, words",
    [
        (1.0, "PASS", "grew by 0.0%"),
        (1.5, "FAIL", "grew by 50.0% (50.0 .. 50.0 at 95%), budget 5.0%"),
        (0.5, "PASS", "mean absolute error shrank by 50.0%"),
    ],
)
def test_growth_of_the_error_is_judged(scale: float, outcome: str, words: str) -> None:
    wanted = RNG.normal(size=(80, 2))
    error = np.abs(RNG.normal(size=(80, 2)))
    data = Targets(wanted.astype(np.float32), 2, "values")
    found, accuracy = measured(data.labels + error, data.labels + scale * error, data, "regression")
    assert found["mae_increase"].value == pytest.approx(scale - 1, abs=1e-6)
    assert "agreement" not in found
    judged = verdict(accuracy, {"max_error_increase": 0.05})
    assert judged.outcome == outcome
    assert words in judged.reason


def test_error_that_grows_from_nothing_is_not_measured_and_said() -> None:
    wanted = np.zeros((40, 1), np.float32)
    _, accuracy = measured(wanted, wanted + 1, Targets(wanted, 1, "values"), "regression")
    assert accuracy.left_out["mae_increase"] == "the original's mean absolute error is 0 or not finite"
    assert verdict(accuracy, {"max_error_increase": 0.05}).outcome == "INCONCLUSIVE"


def test_undecided_growth_says_how_many_images_would_tell() -> None:
    wanted = np.zeros((50, 1), np.float32)
    one, two = np.abs(RNG.normal(size=(2, 50, 1)))
    _, accuracy = measured(one, 0.5 * one + 0.5 * two, Targets(wanted, 1, "values"), "regression")
    value = accuracy.evidence.draws["mae_increase"].estimate
    judged = verdict(accuracy, {"max_error_increase": max(0.0, value) + 0.03})
    assert judged.outcome == "INCONCLUSIVE"
    assert judged.reason.endswith("more images would tell")


# ---------------------------------------------------------------- the whole


def test_measurements_without_their_evidence_are_inconclusive() -> None:
    labels, points = embeddings(60)
    _, accuracy = measured(points, points, Targets(labels, 4), "embedding")
    bare = Accuracy(accuracy.measurements, evidence=Evidence())
    for budget in ({"min_cosine": 0.5}, {"max_class_drop": 0.5}):
        assert verdict(bare, budget).outcome == "INCONCLUSIVE"
        assert verdict(bare, budget).reason.startswith("measured without its")


def test_every_new_gate_counts_among_the_comparisons() -> None:
    budget = Budget(max_accuracy_drop=0, max_class_drop=0, max_error_increase=0, min_cosine=0, min_agreement=0)
    assert gate.statistical_gates(budget) == 5


def test_metrics_asked_for_stand_beside_the_heads_own() -> None:
    labels, original = decided([(5, 1)] * 4, 4)
    found = measure_accuracy(Predictions("a", original, "softmax"), Targets(labels, 4), metrics=[TopK(k=2), TopK(k=3)])
    named = {measurement.name: measurement for measurement in found.measurements}
    assert {"top1", "top2", "top3", "precision", "recall", "f1", "f1_weighted", "auc", "ece", "ties"} == set(named)
    assert named["top2"].how["ties"] == 4  # a wrong answer's label ties with the two classes that are left
    assert named["top1"].value == pytest.approx(20 / 24)
