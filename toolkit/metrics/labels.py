"""Several labels an image, each held or not on its own: ranking, F1 and exact answers.

Average precision and F1 are scikit-learn's; a label holds above probability 0.5. Labels that no image has are left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from toolkit.core import Meaning, Task
from toolkit.metrics.classification import Estimate, Share
from toolkit.metrics.shape import beside, listed
from toolkit.schema import Component

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.metrics.shape import Floats


class OfLabels(Component):
    """A number of the whole split: the mean over labels that some image has."""

    heads: ClassVar[tuple[Meaning, ...]] = ("sigmoids",)
    tasks: ClassVar[tuple[Task, ...]] = ("labels",)
    unit: ClassVar[str] = "fraction"
    higher_is_better: ClassVar[bool] = True
    estimate: ClassVar[Estimate] = "whole"
    against: ClassVar[bool] = False

    def left_out(self, values: Floats) -> str:
        """Labels that no image has, by index."""
        import numpy as np

        missing = [str(index) for index in np.flatnonzero(~values[:, 1].any(axis=0))]
        return listed(missing, "label", "no image has it")


class MeanAveragePrecision(OfLabels):
    """Mean over labels of average precision: how well the images that have a label are ranked before the others."""

    name: ClassVar[str] = "mean_average_precision"

    def per_example(self, outputs: Array, targets: Array, head: Meaning, *, original: Array | None = None) -> Floats:
        """Score of each label (NaN made lowest) and whether it holds, (n, 2, labels)."""
        import numpy as np

        from toolkit.engine import numeric

        scores, truth = beside(outputs, targets, "labels")
        return np.stack([numeric.rankable(scores), truth], axis=1)

    def reduce(self, values: Floats) -> float:
        """Mean average precision of the labels that some image has; equal scores are one step."""
        import numpy as np
        from sklearn.metrics import average_precision_score

        known = np.flatnonzero(values[:, 1].any(axis=0))
        if not len(known):
            return float("nan")
        return float(np.mean([average_precision_score(values[:, 1, at], values[:, 0, at]) for at in known]))


class LabelF1(OfLabels):
    """F1 of each label at threshold 0.5, mean over labels."""

    name: ClassVar[str] = "label_f1"

    def per_example(self, outputs: Array, targets: Array, head: Meaning, *, original: Array | None = None) -> Floats:
        """Whether each label is given (a NaN gives none) and whether it holds, (n, 2, labels)."""
        import numpy as np

        from toolkit.engine import numeric

        scores, truth = beside(outputs, targets, "labels")
        return np.stack([np.maximum(numeric.label_decisions(scores), 0), truth], axis=1).astype(np.float64)

    def reduce(self, values: Floats) -> float:
        """Mean F1 of the labels that some image has."""
        import numpy as np
        from sklearn.metrics import f1_score

        known = np.flatnonzero(values[:, 1].any(axis=0))
        if not len(known):
            return float("nan")
        return float(np.mean([f1_score(values[:, 1, at], values[:, 0, at], zero_division=0) for at in known]))


class ExactMatch(Share):
    """Share of images whose labels are all given, and no other."""

    name: ClassVar[str] = "exact_match"
    heads: ClassVar[tuple[Meaning, ...]] = ("sigmoids",)
    tasks: ClassVar[tuple[Task, ...]] = ("labels",)

    def per_example(self, outputs: Array, targets: Array, head: Meaning, *, original: Array | None = None) -> Floats:
        """1.0 where every label is as it should be, else 0.0; (n,)."""
        import numpy as np

        from toolkit.engine import numeric

        scores, truth = beside(outputs, targets, "labels")
        exact: Floats = (numeric.label_decisions(scores) == truth).all(axis=1).astype(np.float64)
        return exact
