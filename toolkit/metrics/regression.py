"""Numbers predicted: how far off, in the unit of the targets. An image's error is over all its columns."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

from toolkit.core import Meaning, Task
from toolkit.metrics.classification import Estimate
from toolkit.metrics.shape import beside
from toolkit.schema import Component

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.metrics.shape import Floats


class OfValues(Component):
    """An error of numbers; images whose output is NaN or infinite do not count, and are said."""

    heads: ClassVar[tuple[Meaning, ...]] = ("regression",)
    tasks: ClassVar[tuple[Task, ...]] = ("values",)
    unit: ClassVar[str] = "target"
    higher_is_better: ClassVar[bool] = False
    against: ClassVar[bool] = False

    def left_out(self, values: Floats) -> str:
        """How many images have no finite output."""
        import numpy as np

        broken = int(np.count_nonzero(np.isnan(values)))
        return f"{broken} images: without a finite output" if broken else ""


class MeanAbsoluteError(OfValues):
    """Mean absolute difference of output and target."""

    name: ClassVar[str] = "mae"
    estimate: ClassVar[Estimate] = "mean"

    def per_example(self, outputs: Array, targets: Array, head: Meaning, *, original: Array | None = None) -> Floats:
        """Mean over columns of |output - target|, (n,); NaN without a finite output."""
        return _per_image(outputs, targets, power=1)

    def reduce(self, values: Floats) -> float:
        """Mean of the values of `per_example` that count."""
        return _mean(values)


class RootMeanSquareError(OfValues):
    """Root of the mean squared difference of output and target: large errors weigh more."""

    name: ClassVar[str] = "rmse"
    estimate: ClassVar[Estimate] = "whole"

    def per_example(self, outputs: Array, targets: Array, head: Meaning, *, original: Array | None = None) -> Floats:
        """Mean over columns of (output - target)**2, (n,); NaN without a finite output."""
        return _per_image(outputs, targets, power=2)

    def reduce(self, values: Floats) -> float:
        """Root of the mean of the values of `per_example` that count."""
        return math.sqrt(_mean(values))


def _per_image(outputs: Array, targets: Array, *, power: int) -> Floats:
    import numpy as np

    given, wanted = beside(outputs, targets, "numbers")
    errors: Floats = (np.abs(given - wanted) ** power).mean(axis=1)
    errors[~np.isfinite(errors)] = np.nan
    return errors


def _mean(values: Floats) -> float:
    import numpy as np

    counts = ~np.isnan(values)
    return float(values[counts].mean()) if counts.any() else float("nan")
