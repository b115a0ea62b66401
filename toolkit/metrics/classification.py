"""Share of images whose label is the first, or among the first five, of a model's classes.

Equal outputs are ordered by class index, lowest first. One output column is a two-class model (threshold 0.5, or 0 for
a logit). An image with a NaN output counts as wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from toolkit.errors import InputError, UnsupportedError
from toolkit.schema import Component

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from toolkit.core import Array, Labels, Meaning

    Floats = NDArray[np.float64]


class Top1(Component):
    """Share of images whose label is the model's decision."""

    name: ClassVar[str] = "top1"

    def per_example(self, outputs: Array, labels: Labels, head: Meaning) -> Floats:
        """1.0 where the decision is the label, else 0.0; (n,)."""
        import numpy as np

        from toolkit.engine import numeric

        table = _checked(outputs, labels, head)
        right: Floats = np.equal(numeric.decisions(table, head), labels).astype(np.float64)
        return right

    def reduce(self, values: Floats) -> float:
        """Mean of the values of `per_example`."""
        return float(values.mean())


class Top5(Component):
    """Share of images whose label is among the model's five first classes; for models of more than five classes."""

    name: ClassVar[str] = "top5"

    def per_example(self, outputs: Array, labels: Labels, head: Meaning) -> Floats:
        """1.0 where fewer than five classes come before the label, else 0.0; (n,)."""
        import numpy as np

        from toolkit.engine import numeric

        table = _checked(outputs, labels, head)
        if table.shape[1] <= 5:
            raise UnsupportedError(
                "metrics.top5", f"says nothing of a model of {max(table.shape[1], 2)} classes", "use top1"
            )
        return (numeric.label_ranks(table, labels) < 5).astype(np.float64)

    def reduce(self, values: Floats) -> float:
        """Mean of the values of `per_example`."""
        return float(values.mean())


def class_count(outputs: Array, head: Meaning) -> int:
    """Number of classes these outputs tell apart: 2 for one column."""
    from toolkit.engine import numeric

    columns = int(numeric.rows(outputs, head).shape[1])
    return 2 if columns == 1 else columns


def _checked(outputs: Array, labels: Labels, head: Meaning) -> Array:
    from toolkit.engine import numeric

    if not len(labels):
        raise InputError("data", "there is no image to judge on")
    table = numeric.rows(outputs, head)
    if len(table) != len(labels):
        raise InputError("data", f"{len(table)} outputs for {len(labels)} labels")
    classes = class_count(table, head)
    if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise InputError(
            "data",
            f"labels run from {labels.min()} to {labels.max()}, the model has {classes} classes",
            "give the model's own class list, in its order",
        )
    return table
