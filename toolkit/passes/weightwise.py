"""What `sparsify` and `cluster` have in common: weights are chosen one by one, by Edgekit or by TFMOT."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

from toolkit.core import Kind, Model, PassContext, PassResult, QuantSpec
from toolkit.errors import InputError, UnsupportedError
from toolkit.passes import lessons
from toolkit.passes.distill import Distill, evaluation, still_zero, thawed

if TYPE_CHECKING:
    from types import ModuleType

Sorted = tuple[tuple[str, ...], Mapping[str, str]]  # layers that are chosen, and why the others are not


class Weightwise(Distill):
    """A training that chooses weights; `epochs = 0` chooses at once."""

    backend: Literal["native", "tfmot"] = "native"
    """What trains: native is Edgekit's own; tfmot is tensorflow-model-optimization's."""

    def packages(self, quant: QuantSpec, kind: Kind) -> tuple[tuple[str, str], ...]:
        """(package, what to install) that training needs beyond every install's."""
        return (("tensorflow-model-optimization", "edgekit[tfmot]"),) if self.backend == "tfmot" else ()

    @property
    def needs(self) -> tuple[str, ...]:  # type: ignore[override]
        """Splits it cannot do without."""
        return ("train",) if self.epochs else ()

    def _check_tfmot(self, wanted: Mapping[str, Any]) -> None:
        """Raise ValueError for what TFMOT has not. wanted: the one value it has of each key of the pass's own."""
        if self.backend != "tfmot":
            return
        for name in lessons.KEYS:
            if getattr(self, name) is not None:
                raise ValueError(f"backend 'tfmot' teaches through the outputs alone; leave {name} out")
        for name, value in {**wanted, "augment": "none", "patience": 0, "precision": "float32"}.items():
            if getattr(self, name) != value:
                raise ValueError(f"backend 'tfmot' has {name} {value!r} only, got {getattr(self, name)!r}")
        if not self.epochs:
            raise ValueError("backend 'tfmot' trains: give epochs, or set backend = \"native\"")

    def _found(self, find: Callable[[], Sorted], problem: str) -> Sorted:
        """What `find` gives, its errors in this pass's name. problem: what is said where no layer is chosen."""
        try:
            layers, whole = find()
        except InputError as error:
            raise InputError(f"{self.called}.{error.where}", error.problem, error.fix) from error
        if not layers:
            named = ", ".join(f"{name} ({why})" for name, why in whole.items()) or "it has no weights"
            raise UnsupportedError(self.called, f"{problem}: {named}")
        return layers, whole

    def _by_tfmot(self, trainer: ModuleType, model: Model, context: PassContext) -> PassResult:
        """Trained by TFMOT in a process of its own. trainer: the module of engine that knows its task."""
        teachers, train = self._checked(model, context)
        how, watch = self._teaching(model, context), self._watch(model, context)
        trainer.check(model.graph, how)
        seen = self._images(train, model.signature.inputs[0].name, context)
        watch.begin(0)
        result = trainer.train_with_tfmot(
            model.graph,
            seen.rows,
            seen.labels,
            how=how,
            original=self._taught_by(teachers, model),
            evaluate=evaluation(model, context),
            told=lambda number, loss: watch.epoch(number, loss, None),
        )
        changes = (self._summary(result, seen), *thawed(model.graph), *still_zero(model, result.model))
        return PassResult(replace(model, graph=result.model), changes, result.curves)
