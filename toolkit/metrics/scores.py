"""What a classifier's decisions and probabilities are worth class by class: precision, recall, F1, AUC, calibration.

Precision, recall, F1 and AUC are scikit-learn's. Macro: the mean over classes that have images; a class that is never
decided for has precision 0. Calibration: Guo et al. 2017 (arXiv:1706.04599), equation 3.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from toolkit.core import Meaning, Task
from toolkit.metrics.classification import DECIDING, Estimate
from toolkit.metrics.shape import listed, with_labels
from toolkit.schema import Component

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.metrics.shape import Floats

BINS = 15  # Guo et al. 2017, section 5: M = 15


class OfClasses(Component):
    """A number of the whole split, from one class an image."""

    heads: ClassVar[tuple[Meaning, ...]] = DECIDING
    tasks: ClassVar[tuple[Task, ...]] = ("classes",)
    unit: ClassVar[str] = "fraction"
    higher_is_better: ClassVar[bool] = True
    estimate: ClassVar[Estimate] = "whole"
    against: ClassVar[bool] = False


class Decided(OfClasses):
    """A number of labels and decisions."""

    average: Literal["macro", "weighted"] = "macro"
    """macro: every class counts the same; weighted: by its number of images."""

    def per_example(self, outputs: Array, targets: Array, head: Meaning, *, original: Array | None = None) -> Floats:
        """Label, decision (-1 for none) and number of classes, (n, 3)."""
        import numpy as np

        from toolkit.engine import numeric
        from toolkit.metrics.shape import class_count

        table = with_labels(outputs, targets, head)
        classes = np.full(len(targets), class_count(table, head))
        return np.stack([targets, numeric.decisions(table, head), classes], axis=1).astype(np.float64)

    def left_out(self, values: Floats) -> str:
        """Classes without images, by index."""
        import numpy as np

        missing = np.setdiff1d(np.arange(int(values[0, 2])), values[:, 0])
        return listed([str(index) for index in missing], "class", "without images")

    def _name(self, name: str) -> str:
        return name if self.average == "macro" else f"{name}_{self.average}"

    def _score(self, values: Floats, place: int) -> float:
        """precision, recall or F1 (place 0, 1, 2) of labels and decisions."""
        import numpy as np
        from sklearn.metrics import precision_recall_fscore_support

        labels, decided = values[:, 0].astype(int), values[:, 1].astype(int)
        present = np.unique(labels)
        found = precision_recall_fscore_support(labels, decided, labels=present, average=self.average, zero_division=0)
        return float(found[place])


class Precision(Decided):
    """Share of right decisions among those for a class, over classes."""

    @property
    def name(self) -> str:
        """What its measurement is called."""
        return self._name("precision")

    def reduce(self, values: Floats) -> float:
        """Mean precision of the classes that have images."""
        return self._score(values, 0)


class Recall(Decided):
    """Share of a class's images that are decided for it, over classes; macro recall is balanced accuracy."""

    @property
    def name(self) -> str:
        """What its measurement is called."""
        return self._name("recall")

    def reduce(self, values: Floats) -> float:
        """Mean recall of the classes that have images."""
        return self._score(values, 1)


class F1(Decided):
    """Harmonic mean of precision and recall of a class, over classes."""

    @property
    def name(self) -> str:
        """What its measurement is called."""
        return self._name("f1")

    def reduce(self, values: Floats) -> float:
        """Mean F1 of the classes that have images."""
        return self._score(values, 2)


class Auc(OfClasses):
    """Area under the ROC curve, each class against the rest, mean over classes; on probabilities."""

    name: ClassVar[str] = "auc"

    def per_example(self, outputs: Array, targets: Array, head: Meaning, *, original: Array | None = None) -> Floats:
        """Probability of each class (NaN made lowest) and whether it is the label, (n, 2, classes)."""
        import numpy as np

        from toolkit.engine import numeric

        table = with_labels(outputs, targets, head)
        scores = numeric.rankable(numeric.probabilities(table, head))
        return np.stack([scores, np.arange(scores.shape[1]) == np.asarray(targets)[:, None]], axis=1)

    def reduce(self, values: Floats) -> float:
        """Mean area of the classes that have images and are not the only one."""
        import numpy as np
        from sklearn.metrics import roc_auc_score

        known = self._known(values)
        if not known.any():
            return float("nan")
        if values.shape[2] == 2:  # both classes' curves enclose the same area
            known[0] = False
        areas = [roc_auc_score(values[:, 1, place], values[:, 0, place]) for place in np.flatnonzero(known)]
        return float(np.mean(areas))

    def left_out(self, values: Floats) -> str:
        """Classes without images, or with all of them."""
        import numpy as np

        missing = [str(index) for index in np.flatnonzero(~self._known(values))]
        return listed(missing, "class", "has none of the images, or all")

    def _known(self, values: Floats) -> Array:
        share = values[:, 1].mean(axis=0)
        return (share > 0) & (share < 1)  # type: ignore[no-any-return]


class ExpectedCalibrationError(OfClasses):
    """How far confidence and accuracy lie apart: 15 bins of equal width, weighed by their images."""

    name: ClassVar[str] = "ece"
    higher_is_better: ClassVar[bool] = False

    def per_example(self, outputs: Array, targets: Array, head: Meaning, *, original: Array | None = None) -> Floats:
        """Probability of the decision and whether it is right, (n, 2); a NaN output is sure (1) and wrong."""
        import numpy as np

        from toolkit.engine import numeric

        table = with_labels(outputs, targets, head)
        sure = np.nan_to_num(numeric.probabilities(table, head).max(axis=1), nan=1.0)
        return np.stack([np.clip(sure, 0, 1), numeric.decisions(table, head) == targets], axis=1)

    def reduce(self, values: Floats) -> float:
        """Mean over images of |accuracy - confidence| of their bin."""
        import numpy as np

        bins = bin_of(values[:, 0])
        gaps = np.bincount(bins, weights=values[:, 1] - values[:, 0], minlength=BINS)
        return float(np.abs(gaps).sum() / len(values))

    def left_out(self, values: Floats) -> str:
        """Nothing: an empty bin weighs nothing."""
        return ""


def bin_of(confidence: Floats) -> Array:
    """Number of the bin, 0..14: bin m holds confidences in (m / 15, (m + 1) / 15]; 0 falls into the first."""
    import numpy as np

    return np.clip(np.ceil(np.asarray(confidence) * BINS).astype(np.int64) - 1, 0, BINS - 1)
