"""Top-k and agreement against hand-worked answers and an independent sort."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from toolkit import registry
from toolkit.errors import InputError, UnsupportedError
from toolkit.metrics import chosen
from toolkit.metrics.classification import Agreement, Top1, Top5, TopK


def test_top1_counts_decisions_that_are_the_label() -> None:
    outputs = np.array([[0.2, 0.8], [0.6, 0.4], [0.5, 0.5], [math.nan, 1.0]], np.float32)
    values = Top1().per_example(outputs, np.array([1, 1, 0, 1]), "softmax")
    assert values.tolist() == [1, 0, 1, 0]
    assert Top1().reduce(values) == 0.5


@pytest.mark.parametrize("head, outputs", [("sigmoid", [0.1, 0.9, 0.5, 0.7]), ("logits", [-2.0, 3.0, 0.0, 1.0])])
def test_top1_of_one_column_is_a_two_class_model(head: str, outputs: list[float]) -> None:
    values = Top1().per_example(np.array(outputs)[:, None], np.array([0, 1, 0, 0]), head)  # type: ignore[arg-type]
    assert values.tolist() == [1, 1, 1, 0]


def test_top5_equals_a_stable_sort() -> None:
    rng = np.random.default_rng(0)
    outputs, labels = rng.integers(0, 5, (300, 9)).astype(np.float32), rng.integers(0, 9, 300)
    order = np.argsort(-outputs, axis=1, kind="stable")[:, :5]
    expected = [float(label in row) for label, row in zip(labels, order, strict=True)]
    assert Top5().per_example(outputs, labels, "logits").tolist() == expected


@pytest.mark.parametrize("classes", [1, 2, 5])
def test_top5_is_refused_for_five_classes_or_fewer(classes: int) -> None:
    with pytest.raises(UnsupportedError, match=f"model of {max(classes, 2)} classes"):
        Top5().per_example(np.zeros((3, classes)), np.zeros(3, np.int64), "logits")


@pytest.mark.parametrize(
    "labels, problem", [([0, 3], "labels run from 0 to 3, the model has 3 classes"), ([0], "2 outputs for 1 labels")]
)
def test_labels_that_do_not_fit_are_refused(labels: list[int], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        Top1().per_example(np.zeros((2, 3)), np.array(labels), "logits")
    with pytest.raises(InputError, match="no image"):
        Top1().per_example(np.zeros((0, 3)), np.zeros(0, np.int64), "logits")


@pytest.mark.parametrize("k", [1, 2, 3, 8])
def test_topk_equals_a_stable_sort_and_says_its_k(k: int) -> None:
    rng = np.random.default_rng(k)
    outputs, labels = rng.integers(0, 4, (200, 9)).astype(np.float32), rng.integers(0, 9, 200)
    order = np.argsort(-outputs, axis=1, kind="stable")[:, :k]
    expected = np.mean([label in row for label, row in zip(labels, order, strict=True)])
    metric = TopK(k=k)
    assert metric.name == f"top{k}"
    assert metric.reduce(metric.per_example(outputs, labels, "logits")) == pytest.approx(expected)
    if k == 1:
        assert expected == Top1().reduce(Top1().per_example(outputs, labels, "logits"))


def test_top1_of_one_column_by_topk_is_its_decision() -> None:
    outputs, labels = np.array([[0.2], [0.9], [0.5]]), np.array([0, 0, 1])
    assert TopK(k=1).per_example(outputs, labels, "sigmoid").tolist() == [1, 0, 0]


def test_agreement_takes_the_same_decision_and_never_a_nan() -> None:
    original = np.array([[0.9, 0.1], [0.2, 0.8], [math.nan, 1], [0.5, 0.5]])
    other = np.array([[0.6, 0.4], [0.7, 0.3], [math.nan, 1], [1.0, 0.0]])
    labels = np.zeros(4, np.int64)
    assert Agreement().per_example(other, labels, "softmax", original=original).tolist() == [1, 0, 0, 1]
    with pytest.raises(InputError, match="needs the original"):
        Agreement().per_example(other, labels, "softmax")


@pytest.mark.parametrize(
    "head, task, score",
    [
        ("softmax", "classes", "top1"),
        ("sigmoid", "classes", "top1"),
        ("sigmoids", "labels", "mean_average_precision"),
        ("embedding", "classes", "retrieval_at_1"),
        ("embedding", "values", None),
        ("regression", "values", "mae"),
    ],
)
def test_each_head_has_its_score_first(head: Any, task: Any, score: str | None) -> None:
    found = chosen.score(head, task)
    assert (found.name if found else None) == score
    names = [metric.name for metric in chosen.defaults(head, task, 10)]
    assert len(names) == len(set(names))
    assert names[0] == (score or "cosine")


def test_every_shipped_metric_says_what_a_metric_must() -> None:
    for name in registry.FAMILIES["metrics"]:
        metric = registry.load("metrics", name)()
        assert metric.heads
        assert metric.tasks
        assert metric.estimate in ("share", "mean", "whole")
        assert isinstance(metric.higher_is_better, bool)
        assert isinstance(metric.against, bool)
        assert metric.name in (name, "top5")


def test_metrics_are_registered() -> None:
    assert registry.load("metrics", "top1") is Top1
    assert registry.load("metrics", "top5") is Top5
