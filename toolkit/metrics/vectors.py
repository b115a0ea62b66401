"""Embeddings: by direction, against the original's and against one another."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from toolkit.core import Meaning, Task
from toolkit.errors import InputError
from toolkit.metrics.classification import Estimate, Share
from toolkit.metrics.shape import counted
from toolkit.schema import Component

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.metrics.shape import Floats


class Cosine(Component):
    """Mean cosine similarity of an image's embedding to the original's."""

    name: ClassVar[str] = "cosine"
    heads: ClassVar[tuple[Meaning, ...]] = ("embedding",)
    tasks: ClassVar[tuple[Task, ...]] = ("classes", "labels", "values")
    unit: ClassVar[str] = ""
    higher_is_better: ClassVar[bool] = True
    estimate: ClassVar[Estimate] = "mean"
    against: ClassVar[bool] = True

    def per_example(self, outputs: Array, targets: Array, head: Meaning, *, original: Array | None = None) -> Floats:
        """Cosine, -1..1, (n,); an embedding without a direction (zeros, NaN) is at 0, or at 1 where both are equal."""
        from toolkit.engine import similarity

        if original is None:
            raise InputError(f"metrics.{self.name}", "needs the original's answers")
        return similarity.cosines(original, outputs)

    def reduce(self, values: Floats) -> float:
        """Mean of the values of `per_example`."""
        return float(values.mean())

    def left_out(self, values: Floats) -> str:
        """Nothing: each image counts."""
        return ""


class RetrievalAt1(Share):
    """Share of images whose nearest neighbour by cosine, among all other images of the split, is of their class.

    Of equally near ones the lowest index is taken. Images that are alone in their class do not count.
    """

    name: ClassVar[str] = "retrieval_at_1"
    heads: ClassVar[tuple[Meaning, ...]] = ("embedding",)
    tasks: ClassVar[tuple[Task, ...]] = ("classes",)

    def per_example(self, outputs: Array, targets: Array, head: Meaning, *, original: Array | None = None) -> Floats:
        """1.0 where the nearest image has the same label, else 0.0; NaN for the only image of a class; (n,)."""
        import numpy as np

        from toolkit.engine import similarity

        counted(outputs, targets)
        labels = np.asarray(targets)
        nearest = similarity.neighbours(outputs).nearest
        right: Floats = (labels[nearest] == labels).astype(np.float64)
        broken = ~np.isfinite(np.asarray(outputs, np.float64).reshape(len(labels), -1)).all(axis=1)
        right[broken] = 0.0  # no direction to search in
        _, own, sizes = np.unique(labels, return_inverse=True, return_counts=True)
        right[sizes[own] == 1] = np.nan
        return right

    def left_out(self, values: Floats) -> str:
        """How many images are alone in their class."""
        import numpy as np

        alone = int(np.count_nonzero(np.isnan(values)))
        return f"{alone} images: alone in their class" if alone else ""
