"""Post-training quantization: says what the exporters must write; they find the ranges and realise it.

Pages: ai.google.dev/edge/litert, "Post-training quantization"; onnxruntime.ai, "Quantize ONNX models".
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import model_validator

from toolkit.core import LayerChange, Model, PassContext, PassResult, QuantSpec
from toolkit.errors import UnsupportedError
from toolkit.schema import Component

WEIGHTED = ("Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Conv2DTranspose", "Dense")


class Quantize(Component):
    """Sets how weights and activations are stored in the files: float16, dynamic int8 or static int8."""

    takes: ClassVar[tuple[str, ...]] = ("keras", "savedmodel", "tflite", "onnx")

    scheme: Literal["float16", "dynamic", "int8"]
    """float16: weights in 16 bits. dynamic: int8 weights, activations at run time. int8: both, ranges from images."""
    granularity: Literal["per_channel", "per_tensor"] = "per_channel"
    """One scale for each output channel of a weight, or one for the whole weight."""
    io: Literal["float32", "int8", "uint8"] = "float32"
    """Type of the file's inputs and outputs; int8 and uint8 with scheme int8 only."""

    @model_validator(mode="after")
    def _io_fits(self) -> Quantize:
        if self.io != "float32" and self.scheme != "int8":
            raise ValueError(f"io {self.io!r} needs scheme 'int8', got {self.scheme!r}")
        return self

    @property
    def needs(self) -> tuple[str, ...]:
        """Splits it cannot do without."""
        return ("calibration",) if self.scheme == "int8" else ()

    @property
    def quant(self) -> QuantSpec:
        """What the exporters are asked for."""
        return QuantSpec(self.scheme, self.granularity, self.io)

    def run(self, model: Model, context: PassContext) -> PassResult:
        """The same graph with its specification; raises UnsupportedError when there is nothing to quantize."""
        if model.quant.scheme != "float32":
            fix = (
                "quantize once" if model.kind == "keras" else "start from the float file; this one can only be checked"
            )
            raise UnsupportedError("quantize", f"the model is {model.quant.scheme} already", fix)
        if model.kind != "keras":
            change = LayerChange(
                "the model", "float32", self._words(), "written by the exporter, which names the layers"
            )
            return PassResult(replace(model, quant=self.quant), (change,))
        layers = [layer for layer in model.graph.layers if type(layer).__name__ in WEIGHTED]
        if not layers:
            raise UnsupportedError("quantize", f"the model has none of {', '.join(WEIGHTED)}")
        changes = tuple(
            LayerChange(layer.name, "float32", self._words(), "written by the exporter") for layer in layers
        )
        return PassResult(replace(model, quant=self.quant), changes)

    def _words(self) -> str:
        if self.scheme == "float16":
            return "float16 weights"
        scales = self.granularity.replace("_", "-")
        return f"int8 weights ({scales}), " + ("int8 activations" if self.scheme == "int8" else "float activations")
