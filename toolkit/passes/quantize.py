"""Post-training quantization: what the exporters must write, and the ranges for it from the calibration split.

Pages: ai.google.dev/edge/litert, "Post-training quantization"; onnxruntime.ai, "Quantize ONNX models".
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from toolkit.core import STATIC, Kind, LayerChange, Model, PassContext, PassResult, QuantSpec, Statistics
from toolkit.errors import InputError, UnsupportedError
from toolkit.passes import calibration
from toolkit.registry import suggest
from toolkit.schema import Component
from toolkit.traits import SHAPE, ZEROS, Trait

if TYPE_CHECKING:
    from toolkit.engine.prepare import Prepared

WEIGHTED = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Dense")
IO = {"int8": ("float32", "int8", "uint8"), "int16x8": ("float32", "int16")}  # scheme -> types of ends; else float32
WORDS = {
    "float32": "float32",
    "float16": "float16 weights",
    "dynamic": "int8 weights ({scales}), activations quantized while running",
    "int8": "int8 weights ({scales}), int8 activations",
    "int16x8": "int8 weights ({scales}), int16 activations",
    "weight_int8": "int8 weights ({scales}), float activations",
    "weight_int4": "int4 weights ({scales}), float activations",
}


class Quantize(Component):
    """Sets how weights and activations are stored in the files, and calibrates where activations need ranges."""

    takes: ClassVar[tuple[str, ...]] = ("keras", "savedmodel", "tflite", "onnx")
    makes: ClassVar[frozenset[Trait]] = frozenset({"quantized"})

    scheme: Literal["float16", "dynamic", "int8", "int16x8", "weight_int8", "weight_int4"]
    """float16: weights in 16 bits. dynamic: int8 weights, activations quantized while running. int8, int16x8: int8
    weights, activations in 8 or 16 bits, ranges from images. weight_int8, weight_int4: weights alone."""
    granularity: Literal["per_channel", "per_tensor"] = "per_channel"
    """One scale for each output channel of a weight, or one for the whole weight."""
    io: Literal["float32", "int8", "uint8", "int16"] = "float32"
    """Type of the file's inputs and outputs; int8 and uint8 with scheme int8 only, int16 with int16x8 only."""
    flavour: Literal["asymmetric", "symmetric"] = "asymmetric"
    """Of int8 activations: asymmetric for LiteRT and ONNX Runtime, symmetric (zero point 0) for TensorRT."""
    ranges: Literal["minmax", "moving_average", "percentile", "entropy", "mse"] = "minmax"
    """How ranges are chosen: all values, a moving average over images, a share of the values, the least change of
    their distribution, or the least mean squared error."""
    percentile: Annotated[float, Field(gt=50, le=100)] = 99.99
    """Share of all values within a range, in percent, with ranges = "percentile"; the rest is cut from both ends."""
    layers: dict[str, Literal["float32", "int8", "int16x8"]] = Field(default_factory=dict)
    """Layers that get another scheme than the rest, as `{ name = "float32" }`; int8 and int16x8 in static ones only."""
    allow_float: bool = False
    """Operators that the scheme has no kernel for may stay in float32, and are named; otherwise they are an error."""
    backend: Literal["auto", "tensorflow", "ai-edge-quantizer"] = "auto"
    """What writes a .tflite file: TensorFlow's converter, ai-edge-quantizer, or whichever honours the request."""

    corrections: tuple[Literal["equalize", "outliers", "adaround", "gptq", "bias"], ...] = ()
    """Accuracy won back without training, always in this order: equalize channels across layers, clip or split
    outliers, round weights adaptively (adaround or gptq), correct biases. Weights change; what float16 stores is not
    corrected."""

    @model_validator(mode="after")
    def _fits(self) -> Quantize:
        scheme = self.scheme
        if self.io not in IO.get(scheme, ("float32",)):
            needed = next(name for name, types in IO.items() if self.io in types)
            raise ValueError(f"io {self.io!r} needs scheme {needed!r}, got {scheme!r}")
        if self.flavour == "symmetric" and scheme != "int8":
            raise ValueError(f"flavour 'symmetric' needs scheme 'int8', got {scheme!r}")
        if self.ranges != "minmax" and scheme not in STATIC:
            raise ValueError(f"ranges {self.ranges!r} needs scheme 'int8' or 'int16x8', got {scheme!r}")
        usual = type(self).model_fields["percentile"].default  # a resolved recipe has every field
        if self.percentile != usual and self.ranges != "percentile":
            raise ValueError(f"percentile needs ranges 'percentile', got {self.ranges!r}")
        if self.corrections and scheme == "float16":
            raise ValueError("corrections need weights in integers, got scheme 'float16'")
        if {"adaround", "gptq"} <= set(self.corrections):
            raise ValueError("corrections: adaround and gptq both round the weights, choose one")
        for name, own in self.layers.items():
            if own != "float32" and scheme not in STATIC:
                raise ValueError(
                    f"layers: {name}: {own!r} needs scheme 'int8' or 'int16x8' for the rest, got {scheme!r}"
                )
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """Splits it cannot do without."""
        return ("calibration",) if self.scheme in STATIC or {"adaround", "gptq"} & set(self.corrections) else ()

    @property
    def keeps(self) -> frozenset[Trait]:
        """What it leaves as earlier passes made it: the zeros, and shared values where no weight is corrected."""
        return SHAPE | ZEROS | ({"clustered"} if set(self.corrections) <= {"bias"} else set())

    @property
    def quant(self) -> QuantSpec:
        """What the exporters are asked for."""
        return QuantSpec(
            self.scheme,
            self.granularity,
            self.io,
            self.flavour,
            tuple(sorted(self.layers.items())),
            self.ranges,
            self.percentile,
            self.allow_float,
            self.backend,
        )

    def refusal(self, kind: Kind) -> str | None:
        """Why a model of this kind cannot have what is asked for, or None. Asked by `plan`, before any work."""
        if self.corrections and kind != "keras":
            return f"corrections change the layers of a Keras graph, the model is {kind}; set corrections = []"
        return None

    def run(self, model: Model, context: PassContext) -> PassResult:
        """The same graph with its specification and, for static schemes, the ranges of its prepared form.

        UnsupportedError: the model is quantized already, has nothing to quantize, or no finite ranges or weights.
        InputError: no calibration split where one is needed, images of another shape, a layer that is not there.
        """
        if model.quant.scheme != "float32":
            fix = (
                "quantize once" if model.kind == "keras" else "start from the float file; this one can only be checked"
            )
            raise UnsupportedError("quantize", f"the model is {model.quant.scheme} already", fix)
        if model.kind != "keras":
            return self._of_file(model, context)
        if not any(type(layer).__name__ in WEIGHTED for layer in model.graph.layers):
            raise UnsupportedError("quantize", f"the model has none of {', '.join(WEIGHTED)}")
        from toolkit.engine.prepare import prepare

        prepared = prepare(model.graph, scalings=self.quant.folds_scalings)
        quant = replace(self.quant, layers=self._layers(model.graph, prepared))
        if set(self.corrections) - {"bias"} and model.clustered:
            problem = f"would part the shared weights of {len(model.clustered)} clustered layers"
            raise UnsupportedError("quantize.corrections", problem, 'set corrections = ["bias"], or leave them out')
        if self.corrections:
            return self._corrected(model, prepared, context, quant)
        statistics, notes = self._found(model, prepared, context, quant)
        calibration.warn(notes, context)
        changes = self._changes(model.graph, quant)
        return PassResult(
            replace(model, quant=quant, statistics=statistics), (*changes, *_noted(notes, statistics, quant))
        )

    def _corrected(self, model: Model, prepared: Prepared, context: PassContext, quant: QuantSpec) -> PassResult:
        """The prepared graph, corrected, instead of the model's own."""
        from toolkit.engine.sparsity import still
        from toolkit.passes.recovery import correct

        if self.needs:
            calibration.data_of(context, "quantize")
        found = correct(model, prepared.graph, context, quant, corrections=self.corrections)
        calibration.warn(found.notes, context)
        changes = (*self._changes(model.graph, quant), *found.changes)
        return PassResult(
            replace(
                model,
                graph=found.graph,
                quant=quant,
                statistics=found.statistics,
                sparse=still(found.graph, model.sparse),  # doubled channels move what is behind them in its group
            ),
            (*changes, *_noted(found.notes, found.statistics, quant)),
        )

    def _of_file(self, model: Model, context: PassContext) -> PassResult:
        """A file as source: the exporter, which sees its tensors, finds the ranges and names the layers."""
        if reason := self.refusal(model.kind):
            raise UnsupportedError("quantize", reason)
        notes = tuple(calibration.sample_notes(calibration.data_of(context, "quantize"))) if self.needs else ()
        calibration.warn(notes, context)
        reason = "written by the exporter, which names the layers and finds ranges"
        change = LayerChange("the model", "float32", self._words(self.scheme), reason)
        return PassResult(replace(model, quant=self.quant), (change, *_noted(notes, None, self.quant)))

    def _found(
        self, model: Model, prepared: Prepared, context: PassContext, quant: QuantSpec
    ) -> tuple[Statistics | None, tuple[calibration.Note, ...]]:
        """Ranges, for static schemes, and what is worth a warning."""
        if self.needs:
            calibration.data_of(context, "quantize")
            return calibration.statistics_of(prepared.graph, context, quant)
        if self.scheme != "float16":
            return None, ()
        from toolkit.engine.overflow import wide_weights

        for wide in wide_weights(model.graph):
            raise UnsupportedError(wide.layer, str(wide), "use another scheme, or train it with weight decay")
        return None, calibration.float16_notes(prepared.graph, context)

    def _layers(self, graph: Any, prepared: Prepared) -> Any:
        """`layers` by name, a separable convolution as the two that it becomes; raises InputError for no such layer."""
        chosen: dict[str, str] = {}
        known = {str(layer.name): layer for layer in prepared.graph.layers}
        for name, scheme in self.layers.items():
            if name not in known:
                raise self._unknown(name, graph, prepared)
            chosen[name] = scheme
            own = next((layer for layer in graph.layers if layer.name == name), None)
            if type(own).__name__ == "SeparableConv2D":
                chosen.setdefault(str(known[name].input._keras_history.operation.name), scheme)
        return tuple(sorted(chosen.items()))

    def _unknown(self, name: str, graph: Any, prepared: Prepared) -> InputError:
        gone = next((rewrite for rewrite in prepared.rewrites if rewrite.layer == name), None)
        known = {str(layer.name) for layer in (*graph.layers, *prepared.graph.layers)}
        if gone is not None:
            return InputError(f"quantize.layers.{name}", f"is {gone.after} by then", "name that layer")
        return InputError(f"quantize.layers.{name}", "the model has no such layer", suggest(name, known))

    def _changes(self, graph: Any, quant: QuantSpec) -> tuple[LayerChange, ...]:
        schemes: dict[str, str] = dict(quant.layers)
        named = [str(layer.name) for layer in graph.layers if type(layer).__name__ in WEIGHTED or layer.name in schemes]
        named += sorted(schemes.keys() - set(named))
        return tuple(
            LayerChange(name, "float32", self._words(schemes.get(name, self.scheme)), "written by the exporter")
            for name in named
        )

    def _words(self, scheme: str) -> str:
        return WORDS[scheme].format(scales=self.granularity.replace("_", "-"))


def _noted(
    notes: tuple[calibration.Note, ...], statistics: Statistics | None, quant: QuantSpec
) -> tuple[LayerChange, ...]:
    """A line about the calibration, and one for each layer that is worth a warning."""
    general = [note.text for note in notes if note.layer == calibration.GENERAL]
    lines = []
    if statistics is not None:
        after = f"ranges by {quant.ranges} of {statistics.images} images"
        lines.append(LayerChange(calibration.GENERAL, "no ranges", after, "; ".join(general)))
    elif general:
        lines.append(LayerChange(calibration.GENERAL, "no ranges", "left to the exporter", "; ".join(general)))
    lines += [LayerChange(n.layer, "warning", "warning", n.text) for n in notes if n.layer != calibration.GENERAL]
    return tuple(lines)
