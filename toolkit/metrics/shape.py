"""Outputs and targets brought to the shape a metric works on, or one line that says why they do not fit."""

from __future__ import annotations

from typing import TYPE_CHECKING

from toolkit.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from toolkit.core import Array, Labels, Meaning

    Floats = NDArray[np.float64]


def class_count(outputs: Array, head: Meaning) -> int:
    """Number of classes these outputs tell apart: 2 for one column."""
    from toolkit.engine import numeric

    columns = int(numeric.rows(outputs, head).shape[1])
    return 2 if columns == 1 else columns


def with_labels(outputs: Array, labels: Labels, head: Meaning) -> Array:
    """Outputs as (n, columns), the labels known to be classes of theirs."""
    from toolkit.engine import numeric

    counted(outputs, labels)
    table = numeric.rows(outputs, head)
    classes = class_count(table, head)
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(
            "data",
            f"labels run from {labels.min()} to {labels.max()}, the model has {classes} classes",
            "give the model's own class list, in its order",
        )
    return table


def beside(outputs: Array, targets: Array, what: str) -> tuple[Floats, Floats]:
    """Outputs and targets of the same columns, both (n, columns) float64."""
    import numpy as np

    counted(outputs, targets)
    one, two = (np.asarray(each, np.float64).reshape(len(each), -1) for each in (outputs, targets))
    if one.shape != two.shape:
        raise InputError("data", f"the model gives {one.shape[1]} {what}, the data has {two.shape[1]}")
    return one, two


def counted(outputs: Array, targets: Array) -> None:
    """Raises InputError where there is no example, or not one target for each output."""
    if not len(targets):
        raise InputError("data", "there is no image to judge on")
    if len(outputs) != len(targets):
        raise InputError("data", f"{len(outputs)} outputs for {len(targets)} labels")


def listed(items: list[str], what: str, why: str) -> str:
    """ "class 3, 7 and 2 more: without images"; "" for nothing."""
    if not items:
        return ""
    more = f" and {len(items) - 5} more" if len(items) > 5 else ""
    return f"{what} {', '.join(items[:5])}{more}: {why}"
