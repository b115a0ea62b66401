"""Quantization-aware training: the network learns with the rounding of its int8 file in place (Jacob et al. 2018).

arXiv:1712.05877. BatchNormalization goes into the weights first; it stays frozen, or is corrected batch by batch.
Ranges and weights that come out are the file's own: exporters calibrate nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from toolkit.core import Kind, LayerChange, Model, PassContext, PassResult, QuantSpec, Statistics
from toolkit.errors import UnsupportedError
from toolkit.passes import images, lessons
from toolkit.passes.distill import Distill, evaluation, kept, still_shared, still_zero, thawed
from toolkit.quantization import RangeMethod, TensorRange
from toolkit.traits import SHAPE, ZEROS, Trait

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from toolkit.core import Array, Dataset
    from toolkit.engine.prepare import Norm, Prepared
    from toolkit.engine.qat import Learned
    from toolkit.engine.teacher import Teacher
    from toolkit.engine.teaching import Teaching

CALIBRATED = 256  # images that ranges start from, where the model brings none: LiteRT's guide asks for 100 to 500


class Qat(Distill):
    """Trains the model with int8 rounding in place; the float original teaches. Keeps the best epoch on selection: by
    the distance to the teacher where it alone teaches, else by the score."""

    makes: ClassVar[frozenset[Trait]] = frozenset({"trained", "quantized"})
    called: ClassVar[str] = "qat"

    epochs: Annotated[int, Field(ge=1, le=10_000)] = 5
    """Passes over the train split."""
    learning_rate: Annotated[float, Field(gt=0, le=10)] = 3e-5
    """Adam's first step size; decays to 0 along a cosine. Rounding is a small change: train gently."""
    alpha: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Weight of the teacher's part of the loss; the labels have the rest. At 1 no label is looked at."""
    granularity: Literal["per_channel", "per_tensor"] = "per_channel"
    """One scale for each output channel of a weight, or one for the whole weight."""
    flavour: Literal["asymmetric", "symmetric"] = "asymmetric"
    """Of activations: asymmetric for LiteRT and ONNX Runtime, symmetric for TensorRT. One training serves one."""
    io: Literal["float32", "int8", "uint8"] = "float32"
    """Type of the file's inputs and outputs."""
    ranges: Literal["mse", "moving"] = "mse"
    """Of activations: mse has the least squared error on some training images, and they stay; moving ones follow the
    least and largest values of the batches until freeze_after."""
    freeze_after: Annotated[float, Field(ge=0, le=1)] = 0.7
    """Share of the training after which moving ranges stay as they are, and corrected BatchNormalization too."""
    batchnorm: Literal["frozen", "corrected"] = "frozen"
    """BatchNormalization in the weights: frozen keeps its statistics; corrected normalizes by the batch's until
    freeze_after, with the correction that lets the weights be rounded as the file has them."""
    backend: Literal["native", "tfmot"] = "native"
    """What trains: native is Edgekit's own, on any Keras 3 model; tfmot is tensorflow-model-optimization's own 8-bit
    scheme, on what it takes."""

    @model_validator(mode="after")
    def _rounds_in_float32(self) -> Qat:
        if self.precision != "float32":
            raise ValueError(f"precision: the file's steps are finer than {self.precision} tells apart; leave it out")
        return self

    @model_validator(mode="after")
    def _tfmot_takes(self) -> Qat:
        wanted = {"flavour": "asymmetric", "granularity": "per_channel", "augment": "none", "patience": 0}
        for name in lessons.KEYS if self.backend == "tfmot" else ():
            if getattr(self, name) is not None:
                raise ValueError(f"backend 'tfmot' teaches through the outputs alone; leave {name} out")
        for name, value in wanted.items() if self.backend == "tfmot" else ():
            if getattr(self, name) != value:
                raise ValueError(f"backend 'tfmot' has {name} {value!r} only, got {getattr(self, name)!r}")
        if self.backend == "tfmot" and "freeze_after" in self.model_fields_set:
            raise ValueError("freeze_after is of backend 'native': TFMOT moves its ranges to the end")
        for name in ("batchnorm", "ranges") if self.backend == "tfmot" else ():
            if name in self.model_fields_set:
                raise ValueError(f"{name} is of backend 'native': TFMOT has its own way")
        if self.batchnorm == "corrected" and self.freeze_after == 0:
            raise ValueError("batchnorm 'corrected' lasts for freeze_after of the training, got 0")
        usual = type(self).model_fields["freeze_after"].default  # a resolved recipe has every field
        if self.freeze_after != usual and (self.ranges, self.batchnorm) == ("mse", "frozen"):
            raise ValueError("freeze_after is of ranges 'moving' and batchnorm 'corrected': nothing else moves")
        return self

    def packages(self, quant: QuantSpec, kind: Kind) -> tuple[tuple[str, str], ...]:
        """(package, what to install) that training needs beyond every install's."""
        return (("tensorflow-model-optimization", "edgekit[tfmot]"),) if self.backend == "tfmot" else ()

    @property
    def keeps(self) -> frozenset[Trait]:  # type: ignore[override]
        """What it leaves as earlier passes made it; it starts from weights that were trained."""
        return SHAPE | ZEROS | {"clustered"} if self.backend == "native" else SHAPE

    @property
    def quant(self) -> QuantSpec:
        """What the exporters are asked for."""
        return QuantSpec("int8", self.granularity, self.io, self.flavour)

    def run(self, model: Model, context: PassContext) -> PassResult:
        """The prepared graph with weights on their grid, and the ranges its activations learned.

        Raises as `distill` does, and UnsupportedError for a model that is quantized already, or has nothing to
        quantize.
        """
        from toolkit.engine.clusters import still
        from toolkit.engine.prepare import WEIGHTED, prepare
        from toolkit.engine.qat import Rounding, corrected, learned, rounding_graph
        from toolkit.engine.train import fit

        if model.quant.scheme != "float32":
            raise UnsupportedError(self.called, f"the model is {model.quant.scheme} already", "quantize once")
        teachers, train = self._checked(model, context)
        taught_by = self._taught_by(teachers, model)
        if self.backend == "tfmot":
            return self._by_tfmot(model, taught_by, train, context)
        prepared = prepare(model.graph, scalings=self.quant.folds_scalings)
        with lessons.named(self.called):
            lessons.check_apart(prepared.graph, self.hints, self.attention)
        if not any(isinstance(layer, WEIGHTED) for layer in prepared.graph.layers):
            raise UnsupportedError(self.called, "the model has no convolution and no dense layer to quantize")
        seen = self._images(train, model.signature.inputs[0].name, context)
        norms = self._norms(model.graph)
        steps = self._moving_steps(len(seen.rows))
        how = Rounding(self.flavour, self.granularity, steps if self.ranges == "moving" else 0, steps, norms)
        ranges = _start(model, prepared.graph, seen.own_rows, "minmax" if self.ranges == "moving" else "mse")
        start = corrected(prepared.graph, ranges, {prepared.graph.inputs[0].name: _some(seen.own_rows)}, how)
        teaching = replace(self._teaching(model, context), frozen=_still(start))
        with lessons.named(self.called):
            result = fit(
                rounding_graph(start, ranges, how),
                taught_by,
                seen.rows,
                seen.labels,
                how=teaching,
                evaluate=_judge(model, taught_by, context, teaching),
                watch=self._watch(model, context),
                checkpoint=kept(context),
            )
        found = learned(start, result.model, how)
        statistics = Statistics(_learned(found), len(train), train.fingerprint)
        rewrites = (*lessons.compared(result.matches), *_rewritten(prepared), *self._rounded(found.graph))
        kept_so = (*still_zero(model, found.graph), *still_shared(model, found.graph))
        changes = (self._summary(result, seen), *thawed(model.graph), *kept_so, *rewrites)
        clustered = still(found.graph, model.clustered)
        after = replace(model, graph=found.graph, quant=self.quant, statistics=statistics, clustered=clustered)
        return PassResult(after, changes, result.curves)

    def _by_tfmot(self, model: Model, teacher: Teacher, train: Dataset, context: PassContext) -> PassResult:
        """The same, trained by TFMOT in a process of its own."""
        from toolkit.engine import tfmot_qat
        from toolkit.engine.prepare import prepare

        if model.sparse or model.clustered:
            lost = f"fill the zeros of {len(model.sparse)} sparse layers"
            if model.clustered:
                lost = f"part the shared weights of {len(model.clustered)} clustered layers"
            problem = f"it would {lost}"
            raise UnsupportedError(f"{self.called}.backend 'tfmot'", problem, 'set backend = "native"')
        how, watch = self._teaching(model, context), self._watch(model, context)
        tfmot_qat.check(model.graph, how)
        seen = self._images(train, model.signature.inputs[0].name, context)
        watch.begin(0)
        found, result = tfmot_qat.train_with_tfmot(
            model.graph,
            seen.rows,
            seen.labels,
            how=how,
            original=teacher,
            evaluate=evaluation(model, context),
            told=lambda number, loss: watch.epoch(number, loss, None),
        )
        ranges = {
            name: TensorRange(*ends, "learned" if name in found.learned else "minmax")
            for name, ends in found.ranges.items()
        }
        why = "TFMOT has one scale for all its channels, or left it in float"
        again = (LayerChange(name, "TFMOT's weights", "rounded once more", why) for name in found.regridded)
        rewrites = _rewritten(prepare(model.graph))
        changes = (self._summary(result, seen), *thawed(model.graph), *rewrites, *again)
        after = replace(
            model, graph=found.graph, quant=self.quant, statistics=Statistics(ranges, len(train), train.fingerprint)
        )
        return PassResult(after, (*changes, *self._rounded(found.graph)), result.curves)

    def _judged_by(self, model: Model, context: PassContext) -> Literal["score", "loss"]:
        """By the loss where the teacher alone teaches: an epoch changes few decisions, and a score sees only those."""
        alone = self.alpha == 1 or model.head == "embedding"
        return "loss" if alone and self.backend == "native" and context.selection is not None else "score"

    def _norms(self, graph: Any) -> Mapping[str, Norm]:
        """BatchNormalization that training goes on with."""
        from toolkit.engine.prepare import folded_norms

        found = folded_norms(graph) if self.batchnorm == "corrected" else {}
        if self.batchnorm == "corrected" and not found:
            problem = "no BatchNormalization of this model stands behind weights of its own"
            raise UnsupportedError(f"{self.called}.batchnorm 'corrected'", problem, 'set batchnorm = "frozen"')
        return found

    def _moving_steps(self, count: int) -> int:
        """Steps of training in which ranges move."""
        return round(self.freeze_after * self.epochs * (count // min(self.batch_size, count)))

    def _rounded(self, graph: Any) -> tuple[LayerChange, ...]:
        """A line for each layer whose weights are on their grid now."""
        from toolkit.engine.prepare import WEIGHTED

        after = f"int8 weights ({self.granularity.replace('_', '-')}), int8 activations ({self.flavour})"
        names = [layer.name for layer in graph.layers if isinstance(layer, WEIGHTED)]
        return tuple(LayerChange(name, "float32", after, "learned; realised by the exporter") for name in names)


def _rewritten(prepared: Prepared) -> tuple[LayerChange, ...]:
    return tuple(LayerChange(x.layer, x.before, x.after, "the form that is quantized") for x in prepared.rewrites)


def _start(model: Model, prepared: Any, images: Array, method: RangeMethod) -> Mapping[str, tuple[float, float]]:
    """Ranges to start from: the model's own, where it brings them for this graph, or those of some images."""
    from toolkit.engine.qat import find_ranges
    from toolkit.engine.stored import stored

    if model.statistics is not None:
        own = {name: (found.low, found.high) for name, found in model.statistics.ranges.items()}
        tensors = stored(prepared)
        if {tensors.names[edge] for edge in tensors.needed(fixed=False)} <= set(own):
            return own
    return find_ranges(prepared, {prepared.inputs[0].name: _some(images)}, method)


def _some(images: Array) -> Array:
    """Images to measure ranges and shifts on, from all over the split."""
    return images[:: max(1, len(images) // CALIBRATED)][:CALIBRATED]


def _judge(model: Model, teacher: Teacher, context: PassContext, how: Teaching) -> Callable[[Any], float] | None:
    """What tells epochs apart on selection (Teaching.judged_by)."""
    from toolkit.engine.teacher import distance

    selection = context.selection
    if how.judged_by == "score" or selection is None:
        return evaluation(model, context)
    return distance(
        teacher,
        lambda: (batch.inputs for batch in selection.batches(images.BATCH)),
        head=model.head,
        target=how.target,
    )


def _still(graph: Any) -> frozenset[str]:
    """What works as in inference: BatchNormalization that could not go into weights, and dropout.

    The network is trained already. Dropout's noise is many times what rounding changes, which training would not see.
    """
    from toolkit.engine.heads import is_noise

    return frozenset(x.name for x in graph.layers if type(x).__name__ == "BatchNormalization" or is_noise(x))


def _learned(found: Learned) -> dict[str, TensorRange]:
    return {name: TensorRange(low, high, "learned") for name, (low, high) in found.ranges.items()}
