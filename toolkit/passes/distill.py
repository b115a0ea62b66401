"""Knowledge distillation: the original teaches what is left of it (Hinton, Vinyals, Dean 2015, arXiv:1503.02531).

On logits, whatever the head. With an augmentation, teacher and student see the same view of each image.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field

from toolkit.core import LayerChange, Model, PassContext, PassResult, Progress
from toolkit.errors import InputError, UnsupportedError
from toolkit.schema import Component

if TYPE_CHECKING:
    from toolkit.core import Array, Dataset, Labels

IN_MEMORY = 2**30  # bytes of float32 images held in memory; more go to a temporary file
BATCH = 256  # images decoded together


class Distill(Component):
    """Trains the model with the original as teacher; chooses the best epoch on the selection split."""

    takes: ClassVar[tuple[str, ...]] = ("keras",)
    needs: ClassVar[tuple[str, ...]] = ("train",)

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 10
    """Passes over the train split."""
    batch_size: Annotated[int, Field(ge=1, le=65_536)] = 64
    """Images in one step."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 1e-3
    """Adam's first step size; decays to 0 along a cosine."""
    temperature: Annotated[float, Field(ge=1, le=100)] = 4.0
    """Softens both models' probabilities, so that the teacher's second thoughts count."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 0.8
    """Weight of the teacher's part of the loss; the labels have the rest."""
    teacher: Literal["original"] = "original"
    """Who teaches: the model as it was read."""
    augment: Literal["none", "shift", "flip_shift"] = "none"
    """Random views of the images; flip_shift also mirrors them, which is wrong for digits and text."""
    patience: Annotated[int, Field(ge=0)] = 0
    """Epochs without a better selection accuracy before it stops; 0 goes through all."""

    def run(self, model: Model, context: PassContext) -> PassResult:
        """A trained copy.

        InputError: no train split, no original, other classes than the teacher's, or a loss that is no number.
        UnsupportedError: a head that holds no single decision.
        """
        from toolkit.engine.train import Teaching, fit

        teacher, train = self._teacher(model, context), context.train
        if train is None:
            raise InputError("distill", "there is no train split", "set data.splits.train")
        parameters = {k: v for k, v in self.model_dump().items() if k != "teacher"}
        how = Teaching(**parameters, head=model.head, seed=context.seed)

        def score(graph: Any) -> float:
            return context.evaluate(replace(model, graph=graph)) if context.evaluate else 0.0

        def show(epoch: int, loss: float, found: float | None) -> None:
            text = f"distilling, epoch {epoch} of {self.epochs}: loss {loss:.3f}"
            text += "" if found is None else f", selection accuracy {found:.1%}"
            context.emit(Progress(text, epoch / self.epochs))

        with _arrays(train, model.signature.inputs[0].name) as (images, labels):
            evaluate = score if context.evaluate else None
            result = fit(model.graph, teacher.graph, images, labels, how=how, evaluate=evaluate, on_epoch=show)
        scores = result.curves.get("score", ())
        before, after = (f"{scores[i]:.2%}" if scores else "not evaluated" for i in (0, result.best_epoch))
        epochs = len(result.curves["loss"])
        chosen = f"epoch {result.best_epoch} of {epochs} kept" if scores else f"{epochs} epochs, the last kept"
        reason = f"{chosen}, {len(train):,} images; " + ("best on selection" if scores else "no selection split")
        change = LayerChange("the model", f"selection accuracy {before}", f"selection accuracy {after}", reason)
        curves = {{"score": "selection accuracy"}.get(name, name): values for name, values in result.curves.items()}
        return PassResult(replace(model, graph=result.model), (change,), curves)

    def _teacher(self, model: Model, context: PassContext) -> Model:
        if context.original is None:
            raise InputError(
                "distill", "there is no original to teach", "run it from a recipe, or give the context one"
            )
        if model.head not in ("logits", "softmax", "sigmoid") or len(model.signature.inputs) > 1:
            raise UnsupportedError("distill", f"a model of one image and one decision is needed, got {model.head}")
        ours, theirs = (each.graph.outputs[0].shape[-1] for each in (model, context.original))
        if ours != theirs:
            raise InputError("distill", f"the student has {ours} classes, the teacher {theirs}")
        return context.original


@contextmanager
def _arrays(data: Dataset, name: str) -> Iterator[tuple[Array, Labels]]:
    """All images of a split as one array: in memory below 1 GiB, else in a temporary file."""
    import numpy as np

    first = next(iter(data.batches(1))).inputs[name]
    shape = (len(data), *first.shape[1:])
    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
        if first.nbytes * len(data) <= IN_MEMORY:
            images: Array = np.empty(shape, np.float32)
        else:
            path = Path(folder) / "images.npy"
            images = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=shape)
        row = 0
        for batch in data.batches(BATCH):
            images[row : row + len(batch.ids)] = batch.inputs[name]
            row += len(batch.ids)
        yield images, data.labels
