"""A float .tflite file quantized as a model asks: ranges found, resolved, realised, and ready to be checked.

Ranges are the model's statistics wherever the file has a layer's output, else those of the file's own tensors over the
whole calibration split. The quantizer's own calibration is never used.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from toolkit.core import STATIC, ExportContext, Model, Progress, Scheme, TensorSpec
from toolkit.errors import UnsupportedError
from toolkit.exporters import (
    feeds,
    matching,
    observed,
    tflite_aeq,
    tflite_encodings,
    tflite_file,
    tflite_layers,
    tflite_observed,
    tflite_refusal,
    written,
)
from toolkit.exporters.tflite_held import Held
from toolkit.exporters.tflite_operators import FIXED, PASSING
from toolkit.exporters.tflite_scan import layer_of

if TYPE_CHECKING:
    from toolkit.core import Array

PROBES = 2  # images that tensors are told apart on
SHOWN = 5  # names in a note


@dataclass(frozen=True)
class Quantized:
    """content: the signed file. held: what it must hold. notes: what was not as usual."""

    content: bytes
    held: Held
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """What is known before quantizing. schemes: asked of the operators; lacking: those that have no such form."""

    content: bytes
    file: tflite_file.File
    schemes: tuple[Scheme, ...]
    lacking: tuple[int, ...]
    found: Mapping[str, tuple[str, ...]]  # tensors of the file -> layers' outputs of the same values


def plan(content: bytes, model: Model, inputs: tuple[TensorSpec, ...], context: ExportContext) -> Plan:
    """Find the layers in a float file. model: a Keras one in prepared form, or of any other kind."""
    content = tflite_file.with_unique_names(content)
    file = tflite_file.load(content)
    asked = model.statistics is not None or model.quant.layers
    found = _found(content, file, model, inputs, context) if model.kind == "keras" and asked else {}
    schemes: tuple[Scheme, ...] = (model.quant.scheme,) * len(file.operators)
    if model.quant.layers:
        schemes = tflite_layers.schemes_of(file, model.graph, found, model.quant)
    lacking = tuple(tflite_aeq.unsupported(file, schemes))
    return Plan(content, file, schemes, lacking, found)


def quantize(
    plan: Plan, model: Model, inputs: tuple[TensorSpec, ...], context: ExportContext, *, pixels: bool
) -> Quantized:
    """Realise a plan. pixels: an int8 file takes int8, for an intake to come in front."""
    locate = written.locator(model)
    schemes, notes = _allowed(plan, model, locate)
    encodings = None
    if tflite_encodings.static(schemes):
        ranges, own = _ranges(replace(plan, schemes=schemes), model, inputs, context)
        encodings = tflite_encodings.resolve(plan.file, ranges, schemes, tflite_refusal.granularity(model.quant))
        notes += _told(model, own)
        notes += tuple(f"{locate(name) or name}: {text}" for name, text in encodings.notes)
    request = tflite_aeq.Request(
        schemes, tflite_refusal.granularity(model.quant), ("int8" if pixels else model.quant.io, model.quant.io)
    )
    context.emit(Progress(f"quantizing to {model.quant.scheme}"))
    content = tflite_aeq.quantize(plan.content, plan.file, request, encodings)
    names = [[spec.name for spec in specs] for specs in (model.signature.inputs, model.signature.outputs)]
    return Quantized(tflite_file.sign(content, *names), Held(plan.file, request, encodings), notes)


def lacks(plan: Plan, model: Model) -> str:
    """The first operator that has no form in its scheme, in words with its layer; "" for none."""
    if not plan.lacking:
        return ""
    operator = plan.file.operators[plan.lacking[0]]
    return f"{layer_of(operator, written.locator(model))}: {operator.kind}"


def _allowed(plan: Plan, model: Model, locate: Any) -> tuple[tuple[Scheme, ...], tuple[str, ...]]:
    """The schemes with float32 for operators that have no form; raises unless they may stay in float."""
    schemes = list(plan.schemes)
    notes = []
    for index in plan.lacking:
        operator = plan.file.operators[index]
        layer = layer_of(operator, locate)
        if not model.quant.allow_float:
            problem = f"{operator.kind} has no {schemes[index]} form in ai-edge-quantizer"
            fix = "give the layer another scheme in `layers`, or set allow_float = true to leave it in float32"
            raise UnsupportedError(layer, problem, fix)
        notes.append(f"{layer}: {operator.kind} stays float32 (it has no {schemes[index]} form)")
        schemes[index] = "float32"
    return tuple(schemes), tuple(notes)


def _found(
    content: bytes, file: tflite_file.File, model: Model, inputs: tuple[TensorSpec, ...], context: ExportContext
) -> dict[str, tuple[str, ...]]:
    probes = list(_probes(model, inputs, context))
    names = tflite_observed.computed(file)
    return matching.match(
        tflite_observed.values(content, probes, names),
        matching.layer_values(model.graph, [list(example.values()) for example in probes]),
    )


def _probes(model: Model, inputs: tuple[TensorSpec, ...], context: ExportContext) -> Iterator[dict[str, Array]]:
    """Images to tell tensors apart on: of the calibration split where one is needed anyway, else seeded noise."""
    import numpy as np

    if model.quant.scheme in STATIC and context.calibration is not None and len(context.calibration):
        yield from islice(feeds.calibration(replace(context, emit=lambda progress: None), inputs), PROBES)
        return
    generator = np.random.default_rng(0)
    for _ in range(PROBES):
        yield {spec.name: generator.random([length or 1 for length in spec.shape], np.float32) for spec in inputs}


def _ranges(
    plan: Plan, model: Model, inputs: tuple[TensorSpec, ...], context: ExportContext
) -> tuple[dict[str, tuple[float, float]], list[str]]:
    """Ranges of all tensors that need one of their own, and the names of those that were observed on the file."""
    known = model.statistics.ranges if model.statistics is not None else {}
    ranges: dict[str, tuple[float, float]] = {}
    for name, layers in plan.found.items():
        if own := _namesake(name, [layer for layer in layers if layer in known]):
            ranges[name] = (known[own].low, known[own].high)
    ranges |= _of_products(plan, ranges)
    follow = {
        tensor.name
        for operator, scheme in zip(plan.file.operators, plan.schemes, strict=True)
        if scheme in STATIC and operator.kind in {*PASSING, *FIXED}
        for tensor in operator.outputs
    }
    left = [name for name in tflite_observed.computed(plan.file) if name not in ranges]
    missing = [name for name in left if name not in follow]
    if missing:
        feed = feeds.calibration(context, inputs)
        how = model.quant.ranges, model.quant.percentile
        ranges |= observed.observe_tflite(plan.content, feed, *how, missing)
    # their own ranges are replaced by those of what they follow
    return ranges | {name: (0.0, 1.0) for name in left if name in follow}, missing


def _of_products(plan: Plan, ranges: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
    """What products of a tensor of known range and a number have, as inside a Rescaling: the same integers."""
    found = {}
    for operator in (operator for operator in plan.file.operators if operator.kind == "MUL"):
        numbers = [t.data for t in operator.inputs if t and t.data is not None and t.data.size == 1]
        known = [ranges[t.name] for t in operator.inputs if t and t.name in ranges]
        name = operator.outputs[0].name
        if name not in ranges and len(numbers) == len(known) == 1:
            low, high = sorted(end * float(numbers[0].item()) for end in known[0])
            found[name] = low, high
    return found


def _namesake(tensor: str, layers: list[str]) -> str | None:
    """Of layers with the same values on the probes (a sum above 0 and its ReLU), the one the tensor is named by."""
    return max(layers, key=lambda layer: len(layer) if layer in tensor else 0, default=None)


def _told(model: Model, own: list[str]) -> tuple[str, ...]:
    if model.statistics is None or not own:
        return ()
    shown = ", ".join(own[:SHOWN]) + (" ..." if len(own) > SHOWN else "")
    return (f"{len(own)} tensors that only the file has were calibrated on it ({model.quant.ranges}): {shown}",)
