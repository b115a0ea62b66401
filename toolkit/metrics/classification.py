"""One class an image: is the label the decision, or among the first k.

Equal outputs are ordered by class index, lowest first. One output column is a two-class model (threshold 0.5, or 0 for
a logit). An image with a NaN output counts as wrong.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from toolkit.core import Meaning, Task
from toolkit.errors import InputError, UnsupportedError
from toolkit.metrics.shape import with_labels
from toolkit.schema import Component

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.metrics.shape import Floats

Estimate = Literal["share", "mean", "whole"]
DECIDING: tuple[Meaning, ...] = ("logits", "softmax", "sigmoid")


class Share(Component):
    """A share of examples: values of 0 and 1, reduced to their mean."""

    unit: ClassVar[str] = "fraction"
    higher_is_better: ClassVar[bool] = True
    estimate: ClassVar[Estimate] = "share"
    against: ClassVar[bool] = False

    def reduce(self, values: Floats) -> float:
        """Mean of the values of `per_example`, those that count."""
        import numpy as np

        counts = ~np.isnan(values)
        return float(values[counts].mean()) if counts.any() else float("nan")

    def left_out(self, values: Floats) -> str:
        """Nothing: each example counts."""
        return ""


class Top1(Share):
    """Share of images whose label is the model's decision."""

    name: ClassVar[str] = "top1"
    heads: ClassVar[tuple[Meaning, ...]] = DECIDING
    tasks: ClassVar[tuple[Task, ...]] = ("classes",)

    def per_example(self, outputs: Array, targets: Array, head: Meaning, *, original: Array | None = None) -> Floats:
        """1.0 where the decision is the label, else 0.0; (n,)."""
        import numpy as np

        from toolkit.engine import numeric

        table = with_labels(outputs, targets, head)
        right: Floats = np.equal(numeric.decisions(table, head), targets).astype(np.float64)
        return right


class TopK(Share):
    """Share of images whose label is among the model's `k` first classes; for models of more than `k` classes."""

    heads: ClassVar[tuple[Meaning, ...]] = DECIDING
    tasks: ClassVar[tuple[Task, ...]] = ("classes",)

    k: Annotated[int, Field(ge=1, le=1000)] = 5
    """How many classes may come first."""

    @property
    def name(self) -> str:
        """What its measurement is called: top3 for k = 3."""
        return f"top{self.k}"

    def per_example(self, outputs: Array, targets: Array, head: Meaning, *, original: Array | None = None) -> Floats:
        """1.0 where fewer than `k` classes come before the label, else 0.0; (n,)."""
        import numpy as np

        from toolkit.engine import numeric

        table = with_labels(outputs, targets, head)
        if max(table.shape[1], 2) <= self.k:
            problem, fix = f"says nothing of a model of {max(table.shape[1], 2)} classes", "use top1, or a smaller k"
            raise UnsupportedError(f"metrics.{self.name}", problem, fix)
        if table.shape[1] == 1:
            return Top1().per_example(outputs, targets, head)
        return (numeric.label_ranks(table, targets) < self.k).astype(np.float64)


class Top5(TopK):
    """Share of images whose label is among the model's five first classes; for models of more than five classes."""

    k: Literal[5] = 5
    """Always 5; `topk` takes others."""


class Agreement(Share):
    """Share of images decided as the original decides.

    Classes: the same class. Several labels: every label alike (threshold 0.5). Embeddings: the same nearest neighbour
    among the other images, each model in its own space.
    """

    name: ClassVar[str] = "agreement"
    heads: ClassVar[tuple[Meaning, ...]] = (*DECIDING, "sigmoids", "embedding")
    tasks: ClassVar[tuple[Task, ...]] = ("classes", "labels", "values")
    against: ClassVar[bool] = True

    def per_example(self, outputs: Array, targets: Array, head: Meaning, *, original: Array | None = None) -> Floats:
        """1.0 where both decide alike, 0.0 also where a NaN decides nothing; (n,)."""
        import numpy as np

        from toolkit.engine import numeric, similarity

        if original is None:
            raise InputError(f"metrics.{self.name}", "needs the original's answers")
        if head == "embedding":
            one, two = (similarity.neighbours(each).nearest[:, None] for each in (original, outputs))
        elif head == numeric.LABELS:
            one, two = (numeric.label_decisions(each) for each in (original, outputs))
        else:
            one, two = (numeric.decisions(each, head)[:, None] for each in (original, outputs))
        alike: Floats = ((one == two) & (two >= 0)).all(axis=1).astype(np.float64)
        return alike
