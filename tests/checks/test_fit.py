"""What does not belong together is refused in one line."""

from __future__ import annotations

from typing import Any

import pytest

from toolkit.checks import fit
from toolkit.core import Budget, TensorSpec
from toolkit.errors import InputError
from toolkit.metrics.labels import LabelF1
from toolkit.metrics.scores import F1


class Data:
    """A split of which only kind and number of targets count."""

    def __init__(self, task: str, classes: int) -> None:
        self.task, self.classes = task, tuple(map(str, range(classes)))


def output(head: Any, columns: int) -> TensorSpec:
    return TensorSpec("out", (None, columns), "float32", head)


@pytest.mark.parametrize(
    "head, columns, task, classes, problem",
    [
        ("sigmoids", 3, "classes", 3, "'sigmoids', which needs several labels an image; the data gives one class"),
        ("regression", 1, "classes", 10, "'regression', which needs numbers; the data gives one class an image"),
        ("softmax", 3, "labels", 3, "'softmax', which needs one class an image; the data gives several labels"),
        ("softmax", 3, "classes", 4, "the model has 3 classes, the data has 4"),
        ("logits", 1001, "classes", 1000, r"the data has 1000 \(one more: its class 0 may be the background\)"),
        ("logits", 1, "classes", 3, "the model has 2 classes, the data has 3"),
        ("sigmoids", 3, "labels", 4, "the model has 3 labels, the data has 4"),
        ("regression", 2, "values", 1, "the model has 2 numbers, the data has 1"),
        ("image", 2, "values", 1, "its output is 'image', which cannot be judged"),
    ],
)
def test_data_of_another_kind_or_number_are_refused(
    head: str, columns: int, task: str, classes: int, problem: str
) -> None:
    with pytest.raises(InputError, match=problem):
        fit.check_data(output(head, columns), Data(task, classes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "head, columns, task, classes",
    [
        ("sigmoid", 1, "classes", 2),
        ("logits", 1, "classes", 2),
        ("logits", 5, "classes", 5),
        ("sigmoids", 1, "labels", 1),
        ("embedding", 64, "classes", 7),
        ("embedding", 64, "values", 2),
        ("regression", 3, "values", 3),
    ],
)
def test_data_that_fit_are_taken(head: str, columns: int, task: str, classes: int) -> None:
    fit.check_data(output(head, columns), Data(task, classes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "head, budget, task, problem",
    [
        ("regression", "max_accuracy_drop", None, "a regression has no accuracy. Fix: set max_error_increase."),
        ("regression", "max_class_drop", None, "a regression has no classes. Fix: set max_error_increase."),
        ("regression", "min_agreement", None, "a regression has no decisions to agree on. Fix: set max_error_incr"),
        ("softmax", "max_error_increase", None, "the head is 'softmax', which has no error that grows"),
        ("sigmoids", "min_cosine", None, "the head is 'sigmoids', not an embedding"),
        ("embedding", "max_accuracy_drop", "values", "the data has no classes. Fix: set min_cosine"),
    ],
)
def test_limits_a_head_cannot_have_are_refused(head: Any, budget: str, task: Any, problem: str) -> None:
    with pytest.raises(InputError, match=f"budget.{budget}: .*{problem}") as caught:
        fit.require(head, [Budget(**{budget: 0.5})], [], task)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2


def test_every_problem_is_a_line_and_none_is_said_twice() -> None:
    budget = Budget(max_accuracy_drop=0.1, min_agreement=0.9)
    with pytest.raises(InputError) as caught:
        fit.require("regression", [budget, budget], [F1()])
    lines = str(caught.value).splitlines()
    assert len(lines) == 3
    assert lines[0].startswith("budget.max_accuracy_drop: ")
    assert lines[2].startswith("metrics.f1: takes logits or softmax or sigmoid; the head is 'regression'")


def test_budgets_and_metrics_that_fit_are_taken() -> None:
    fit.require("regression", [Budget(max_error_increase=0.1, max_size_kib=9)], [])
    fit.require("embedding", [Budget(max_accuracy_drop=0.1, min_cosine=0.9, max_class_drop=0.1)], [], "classes")
    fit.require("sigmoids", [Budget(max_accuracy_drop=0.1, min_agreement=0.9)], [LabelF1()], "labels")
