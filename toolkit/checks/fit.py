"""Whether a head, the data, the metrics and the budget belong together: said in one line, before any work."""

from __future__ import annotations

from collections.abc import Iterable
from types import MappingProxyType
from typing import Any

from toolkit.core import Budget, Dataset, Meaning, Task, TensorSpec
from toolkit.errors import InputError
from toolkit.metrics.classification import DECIDING

MOST_FOR_TWO = 3  # classes: so few have no background among them
EVERY: tuple[Task, ...] = ("classes", "labels", "values")
TARGETS: MappingProxyType[Meaning, tuple[Task, ...]] = MappingProxyType(
    {
        **dict.fromkeys(DECIDING, ("classes",)),
        "sigmoids": ("labels",),
        "embedding": EVERY,
        "regression": ("values",),
    }
)
"""What data each head can be judged on; an embedding is compared with the original's on any."""
WORDS: MappingProxyType[Task, str] = MappingProxyType(
    {"classes": "one class an image", "labels": "several labels an image", "values": "numbers"}
)
_SEVERAL_SIGMOIDS = 'set model.head = "sigmoid" to decide for the highest score, or give labels of shape (n, classes)'


def check_data(output: TensorSpec, data: Dataset) -> None:
    """Raise InputError where the targets are of another kind or number than the model's output."""
    head = output.meaning
    tasks = TARGETS.get(head)
    if tasks is None:
        raise InputError("model", f"its output is {head!r}, which cannot be judged", "set model.head")
    if data.task not in tasks:
        problem = f"the model's head is {head!r}, which needs {WORDS[tasks[0]]}; the data gives {WORDS[data.task]}"
        several = head == "sigmoids" and data.task == "classes"
        raise InputError("data", problem, _SEVERAL_SIGMOIDS if several else "give other data, or set model.head")
    columns = output.shape[-1] if output.shape else None
    if head == "embedding" or columns is None:
        return
    known = 2 if columns == 1 and head in DECIDING else columns
    if known != len(data.classes):
        word = {"classes": "classes", "labels": "labels", "values": "numbers"}[data.task]
        problem = f"the model has {known} {word}, the data has {len(data.classes)}"
        one_more = data.task == "classes" and known == len(data.classes) + 1 > MOST_FOR_TWO
        ground = " (one more: its class 0 may be the background)" if one_more else ""
        raise InputError("data", problem + ground, f"give the data all {word} of the model, in its order")


def budget_problems(head: Meaning, budget: Budget, task: Task | None = None) -> tuple[tuple[str, str, str], ...]:
    """(limit, what is wrong, what to do) of each limit that cannot be judged of such a head; task None: not known."""
    found = []
    for limit in ("max_accuracy_drop", "max_class_drop", "max_error_increase", "min_cosine", "min_agreement"):
        problem = _problem(limit, head, task) if getattr(budget, limit) is not None else None
        if problem:
            found.append((f"budget.{limit}", *problem))
    return tuple(found)


def _problem(limit: str, head: Meaning, task: Task | None) -> tuple[str, str] | None:
    if limit == "max_error_increase":
        fix = "set max_accuracy_drop"
        return None if head == "regression" else (f"the head is {head!r}, which has no error that grows", fix)
    if limit == "min_cosine":
        return None if head == "embedding" else (f"the head is {head!r}, not an embedding", "set min_agreement")
    if head == "regression":
        what = {"max_accuracy_drop": "accuracy", "max_class_drop": "classes"}.get(limit, "decisions to agree on")
        return f"a regression has no {what}", "set max_error_increase"
    if head == "embedding" and limit != "min_agreement" and task not in (None, "classes"):
        return "an embedding is right or wrong by the class of its nearest neighbour, and the data has no classes", (
            "set min_cosine, or give data of one class an image"
        )
    return None


def metric_problems(
    head: Meaning, metrics: Iterable[Any], task: Task | None = None
) -> tuple[tuple[str, str, str], ...]:
    """(metric, what is wrong, what to do) of each metric that does not take such a head or such data."""
    found = []
    for metric in metrics:
        where = f"metrics.{metric.name}"
        if head not in metric.heads:
            problem, fix = f"takes {' or '.join(metric.heads)}; the head is {head!r}", "leave it out"
            found.append((where, problem, fix))
        elif task is not None and task not in metric.tasks:
            problem = f"needs {' or '.join(WORDS[each] for each in metric.tasks)}; the data gives {WORDS[task]}"
            found.append((where, problem, "leave it out"))
    return tuple(found)


def require(head: Meaning, budgets: Iterable[Budget], metrics: Iterable[Any], task: Task | None = None) -> None:
    """Raise one InputError with a line for each limit and metric that does not fit."""
    problems = [problem for budget in budgets for problem in budget_problems(head, budget, task)]
    problems += metric_problems(head, metrics, task)
    lines = list(dict.fromkeys(problems))
    if len(lines) == 1:
        raise InputError(*lines[0])
    if lines:
        text = "\n".join(str(InputError(*line)) for line in lines)
        raise InputError(lines[0][0], text.removeprefix(f"{lines[0][0]}: "))
