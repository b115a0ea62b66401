"""Which metrics a head has: its score, which gates and selects, and those that are reported beside it."""

from __future__ import annotations

from typing import Any

from toolkit.core import Meaning, Metric, Task
from toolkit.metrics.classification import DECIDING, Top1, Top5
from toolkit.metrics.labels import ExactMatch, LabelF1, MeanAveragePrecision
from toolkit.metrics.regression import MeanAbsoluteError, RootMeanSquareError
from toolkit.metrics.scores import F1, Auc, ExpectedCalibrationError, Precision, Recall
from toolkit.metrics.vectors import Cosine, RetrievalAt1

MORE_THAN_TOP5 = 6  # fewest classes of which top-5 says anything


def score(head: Meaning, task: Task) -> Metric | None:
    """The one number that selects and gates; None for a head and targets that have none of their own."""
    metrics: tuple[Any, ...] = (Top1(), MeanAveragePrecision(), RetrievalAt1(), MeanAbsoluteError())
    return next((metric for metric in metrics if fits(metric, head, task)), None)


def defaults(head: Meaning, task: Task, classes: int) -> tuple[Metric, ...]:
    """Reported without being asked for, the score first."""
    found: tuple[Any, ...] = ()
    if head in DECIDING:
        found = (Top1(), *([Top5()] if classes >= MORE_THAN_TOP5 else []))
        found += (Precision(), Recall(), F1(), F1(average="weighted"), Auc(), ExpectedCalibrationError())
    elif head == "sigmoids":
        found = (MeanAveragePrecision(), LabelF1(), ExactMatch())
    elif head == "embedding":
        found = (RetrievalAt1(), Cosine())
    elif head == "regression":
        found = (MeanAbsoluteError(), RootMeanSquareError())
    return tuple(metric for metric in found if fits(metric, head, task))


def fits(metric: Any, head: Meaning, task: Task) -> bool:
    """Whether a metric takes these outputs and targets."""
    return head in metric.heads and task in metric.tasks
