"""Magnitude pruning: single weights become zero, step by step, while the original teaches the others to make up for it.

Zhu and Gupta 2017, arXiv:1710.01878. The network keeps its shape: how many of a file's weights are zero makes it
compress better, and faster only on a runtime that skips zeros (docs/sparsity.md). `prune` removes whole channels.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from toolkit.core import LayerChange, Model, PassContext, PassResult
from toolkit.errors import UnsupportedError
from toolkit.passes.weightwise import Weightwise
from toolkit.traits import SHAPE, ZEROS, Trait

if TYPE_CHECKING:
    from collections.abc import Mapping

    from toolkit.engine.sparsity import Sparsity, Zeros
    from toolkit.engine.teaching import Teaching

PATTERN = r"^(unstructured|[1-9]\d{0,2}:[1-9]\d{0,2}|[1-9]\d{0,2}x[1-9]\d{0,2})$"


class Sparsify(Weightwise):
    """Makes weights zero by magnitude, on a schedule, while it trains; they stay zero in the passes that follow."""

    called: ClassVar[str] = "sparsify"

    sparsity: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Share of the weights that become zero; of the blocks with a block pattern. An N:M pattern fixes it itself."""
    pattern: Annotated[str, Field(pattern=PATTERN)] = "unstructured"
    """Where zeros lie: "unstructured" anywhere; "2:4" (any N:M): 2 of every 4 input channels stay; "4x1" (any size):
    blocks of 4 inputs x 1 output go together."""
    scope: Literal["layer", "global"] = "layer"
    """Take the share of each layer, or of all layers by one threshold."""
    schedule: Literal["polynomial", "constant"] = "polynomial"
    """How zeros come: more and more of them from `initial` to `sparsity`, or all at `begin`. N:M comes at once."""
    initial: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of zeros that a polynomial schedule begins with."""
    begin: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Share of the training after which zeros begin."""
    end: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the training after which which weights are zero stays as it is."""
    frequency: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Steps between two choices of zeros; left out, 100, or a tenth of the steps from begin to end if that is less."""
    power: Annotated[float, Field(gt=0, le=100)] = 3.0
    """Exponent of a polynomial schedule."""
    protect: tuple[str, ...] = ()
    """Name patterns (`*` and `?`) of layers that stay whole."""
    epochs: Annotated[int, Field(ge=0, le=10_000)] = 10
    """Passes over the train split; 0 makes the zeros at once and trains nothing (let `distill` follow)."""
    backend: Literal["native", "tfmot"] = "native"
    """What trains: native is Edgekit's own; tfmot is tensorflow-model-optimization's prune_low_magnitude, which chooses
    the same zeros for the same schedule."""

    @model_validator(mode="after")
    def _asked_for_something(self) -> Self:
        ratio = self._ratio
        if ratio and ratio[0] >= ratio[1]:
            raise ValueError(f"pattern: of {ratio[1]}, fewer than {ratio[1]} can stay, got {self.pattern!r}")
        if self.pattern == "1x1":
            raise ValueError("pattern: blocks of one weight are 'unstructured'")
        if ratio is None and self.sparsity is None:
            raise ValueError("give sparsity, the share of weights that become zero")
        if ratio is not None and self.sparsity not in (None, 1 - ratio[0] / ratio[1]):
            raise ValueError(f"pattern {self.pattern} has a sparsity of its own, {1 - ratio[0] / ratio[1]:g}; leave it")
        if ratio is not None and self.scope == "global":
            raise ValueError(f"pattern {self.pattern} is the same in every layer: there is no scope 'global'")
        self._refuse_unused()
        if self.begin >= self.end:
            raise ValueError(f"begin must be before end, got {self.begin:g} and {self.end:g}")
        if self.schedule == "polynomial" and self.initial >= (self.sparsity or 1):
            raise ValueError(f"initial must be below sparsity, got {self.initial:g} and {self.sparsity:g}")
        return self

    def _refuse_unused(self) -> None:
        """Raise ValueError for settings that nothing here uses; a resolved recipe has all, as they are by default."""
        timing = ("schedule", "begin", "end", "frequency", "initial", "power")
        cases = (
            (self._ratio is not None, timing, f"pattern {self.pattern!r}, which is there from the first step"),
            (self.epochs == 0, timing, "epochs = 0, which trains nothing"),
            (self.schedule == "constant", timing[-2:], "schedule 'constant'"),
        )
        for holds, names, what in cases:
            for name in names if holds else ():
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f"{name} is of no use with {what}; leave it out")

    @model_validator(mode="after")
    def _tfmot_takes(self) -> Self:
        self._check_tfmot({"scope": "layer"})
        return self

    keeps: ClassVar[frozenset[Trait]] = SHAPE | ZEROS

    @property
    def makes(self) -> frozenset[Trait]:  # type: ignore[override]
        """Zeros, in groups or blocks or anywhere."""
        zeros: Trait = "sparse" if self.pattern == "unstructured" else "patterned"
        return frozenset({zeros, "trained"} if self.epochs else {zeros})

    @property
    def _ratio(self) -> tuple[int, int] | None:
        """(n, m) of an N:M pattern."""
        n, colon, m = self.pattern.partition(":")
        return (int(n), int(m)) if colon else None

    def run(self, model: Model, context: PassContext) -> PassResult:
        """A copy with zeros, and a line for each layer.

        Raises as `distill` does; UnsupportedError for a model that is quantized already, or where no layer can have
        zeros; InputError for a pattern of `protect` that matches no layer.
        """
        from toolkit.engine.sparsity import zeros

        if model.quant.scheme != "float32":
            raise UnsupportedError(self.called, f"the model is {model.quant.scheme} already", "make zeros first")
        if model.clustered:
            problem = "the model's weights are clustered already"
            raise UnsupportedError(self.called, problem, "make zeros first, then cluster, which keeps them")
        layers, whole = self._layers(model)
        others = {name: pattern for name, pattern in model.sparse.items() if name not in layers}
        result = self._made(replace(model, sparse=others), context)
        graph = result.model.graph
        before, after = ({row.layer: row for row in zeros(x, layers)} for x in (model.graph, graph))
        rows = [LayerChange(name, _words(before[name]), f"{_words(after[name])}, {self.pattern}") for name in layers]
        kept = [LayerChange(name, "all weights", "all weights", why) for name, why in whole.items()]
        changes = (*result.changes, self._total(before, after), *rows, *kept)
        return PassResult(replace(result.model, sparse=self._patterns(model, graph, layers)), changes, result.curves)

    def _made(self, model: Model, context: PassContext) -> PassResult:
        """A copy with zeros, by whoever trains."""
        from toolkit.engine import tfmot_sparsity

        if not self.epochs:
            return self._at_once(model, context)
        if self.backend == "tfmot":
            return self._by_tfmot(tfmot_sparsity, model, context)
        return super().run(model, context)

    def _layers(self, model: Model) -> tuple[tuple[str, ...], Mapping[str, str]]:
        """Layers that get zeros, and why the others do not."""
        from toolkit.engine.sparsity import Pattern, eligible

        find = partial(eligible, model.graph, Pattern.parse(self.pattern), self.protect)
        return self._found(find, "no layer can have zeros")

    def zeros_of(self, model: Model, steps: int) -> Sparsity:
        """Layers, pattern and schedule of a training of so many steps; zeros of other layers stay."""
        from toolkit.engine.sparsity import ONCE, Pattern, Sparsity, over

        layers, _ = self._layers(model)
        held = tuple(name for name in model.sparse if name not in layers)
        pattern = Pattern.parse(self.pattern)
        if pattern.kind == "n:m":
            return Sparsity(layers, pattern, ONCE, held=held)
        schedule = over(
            steps,
            self.sparsity or 0.0,
            curve=self.schedule,
            initial=self.initial,
            begin=self.begin,
            end=self.end,
            frequency=self.frequency,
            power=self.power,
        )
        return Sparsity(layers, pattern, schedule, self.scope, held)

    def _teaching(self, model: Model, context: PassContext) -> Teaching:
        count = self._count(context)
        steps = self.epochs * (count // max(1, min(self.batch_size, count)))
        return replace(super()._teaching(model, context), sparsity=self.zeros_of(model, steps))

    def _at_once(self, model: Model, context: PassContext) -> PassResult:
        """All zeros now, nothing trained."""
        from toolkit.engine.sparsity import sparsified

        asked = self.zeros_of(model, 1)
        graph = sparsified(model.graph, asked, self.sparsity or 0.0)
        line = LayerChange("the model", "trained", "not trained since", "epochs = 0; let distill follow")
        return PassResult(replace(model, graph=graph), (line,))

    def _total(self, before: Mapping[str, Zeros], after: Mapping[str, Zeros]) -> LayerChange:
        """The line about all weights that could become zero."""
        from toolkit.engine.sparsity import Zeros

        old, new = (
            Zeros("", sum(row.zeros for row in rows.values()), sum(row.size for row in rows.values()))
            for rows in (before, after)
        )
        what = "blocks" if "x" in self.pattern else "weights"
        share = f"{self.sparsity:.1%} of the {what}, {self.scope}" if self._ratio is None else self.pattern
        return LayerChange(f"{len(after)} layers", _words(old), _words(new), f"asked for {share}")

    def _patterns(self, model: Model, graph: Any, layers: tuple[str, ...]) -> Mapping[str, str]:
        """What later passes and exporters are told of the zeros."""
        from toolkit.engine.sparsity import still

        return still(graph, {**model.sparse, **dict.fromkeys(layers, self.pattern)})


def _words(row: Zeros) -> str:
    return f"{row.zeros:,} of {row.size:,} weights are zero ({row.zeros / row.size:.1%})"
