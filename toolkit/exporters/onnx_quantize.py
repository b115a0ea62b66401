"""From a float .onnx graph to its quantized form: whose ranges, which operators, which encodings.

Ranges of a Keras model's statistics are found by the values of its layers; the rest is observed on the file itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from toolkit.core import ExportContext, Model, QuantSpec, TensorSpec
from toolkit.errors import InputError, UnsupportedError
from toolkit.exporters import feeds, observed, onnx_matching, onnx_placing, onnx_qdq, written
from toolkit.exporters.onnx_file import File
from toolkit.exporters.onnx_qdq import Request

if TYPE_CHECKING:
    from toolkit.core import Array

Ranges = Mapping[str, tuple[float, float]]


def quantize(
    proto: Any, model: Model, inputs: tuple[TensorSpec, ...], context: ExportContext, *, tensorrt: bool = False
) -> tuple[Any, Request, tuple[str, ...]]:
    """The quantized ModelProto, what it must hold, and notes; model: the prepared one that `proto` was made of.

    tensorrt: Q/DQ where TensorRT gains by it, with scales that are float16 numbers.

    Raises:
        UnsupportedError: a tensor has no finite range, or a layer cannot have the scheme it is given.
        InputError: ranges must be observed, and there are no images to do it on.
    """
    pool_means(proto)
    file, quant, locate = File(proto), model.quant, written.locator(model)
    matched = matches(file, model, inputs, context)
    placement = onnx_placing.place(file, quant, matched, locate, tensorrt=tensorrt)
    onnx_placing.require_whole(placement, quant)
    where = onnx_qdq.stored(file, quant, placement)
    ranges = known(model, matched, where.own)
    spread = {name: ranges[source] for name, source in where.source.items() if source in ranges}
    ranges |= {name: ends for name, ends in derived(file, spread).items() if name in where.own}
    missing = [name for name in where.own if name not in ranges]
    if missing:
        ranges |= _observed(file, model, inputs, context, missing)
    ranges = {name: onnx_qdq.bounded(file, name, *ranges[name]) for name in where.own}
    if quant.flavour == "symmetric":
        ranges = joined(file, ranges)
    asked = onnx_qdq.request(file, quant, placement, where, ranges)
    asked = onnx_qdq.in_float16(asked) if tensorrt else asked
    told = model.statistics is not None and missing
    words = f"ranges of {len(missing)} tensors were found on the file itself: {_few(missing)}"
    return onnx_qdq.write(asked), asked, (*((words,) if told else ()), *placement.spared)


def refusal(quant: QuantSpec) -> str | None:
    """Why this quantization has no .onnx form, or None."""
    for name, scheme in (("", quant.scheme), *quant.layers):
        where = f"layer {name}: " if name else ""
        if scheme == "dynamic":
            return (
                f"{where}ONNX Runtime's quantizer gives a convolution's weights one scale there, also where one per "
                "channel is asked for, and its ConvInteger is slower than the float Conv; use int8, weight_int8 or "
                "float16, or export dynamic to tflite"
            )
        if scheme == "int16x8":
            return (
                f"{where}ONNX Runtime has no 16-bit kernels of convolutions on a CPU and would compute in float; use "
                "int8 with the sensitive layers in float32, or export int16x8 to tflite"
            )
        if scheme == "weight_int4":
            return f"{where}int4 came with operator set 21, and tf2onnx ends at 18; use weight_int8"
    return _layers_refusal(quant)


def _layers_refusal(quant: QuantSpec) -> str | None:
    if quant.layers and quant.scheme in ("float32", "float16"):
        return f"layers with a scheme of their own need scheme int8 or weight_int8, not {quant.scheme}"
    for name, scheme in quant.layers:
        if scheme not in onnx_placing.LAYER_SCHEMES:
            return f"layer {name}: {scheme} of single layers is not written to ONNX; use float32 or weight_int8"
        if scheme == "int8" and quant.scheme == "weight_int8":
            return f"layer {name}: int8 beside weight_int8 is not written; use scheme int8 with the others in layers"
    if quant.flavour == "symmetric" and quant.scheme not in ("int8", "weight_int8", "float32", "float16"):
        return f"there is no symmetric form of {quant.scheme}"
    return None


# ---------------------------------------------------------------- ranges


def matches(
    file: File, model: Model, inputs: tuple[TensorSpec, ...], context: ExportContext
) -> dict[str, tuple[str, ...]]:
    """Tensor -> layers of the same values, where ranges or single layers ask for it."""
    if model.kind != "keras" or not (model.statistics or model.quant.layers):
        return {}
    examples = _probes(model, inputs, context)
    layers = onnx_matching.layer_outputs(model.graph, [feeds.as_keras(example, inputs) for example in examples])
    return onnx_matching.match(file, layers, examples)


def _probes(model: Model, inputs: tuple[TensorSpec, ...], context: ExportContext) -> list[dict[str, Array]]:
    """Two images of the calibration set, or noise over the inputs' ranges."""
    import numpy as np

    if context.calibration is not None and len(context.calibration) > 1:
        examples = feeds.calibration(context, inputs)
        return [next(examples), next(examples)]
    known = model.statistics.ranges if model.statistics else {}
    generator, found = np.random.default_rng(0), []
    for _ in range(2):
        example = {}
        for spec in inputs:
            low, high = (known[spec.name].low, known[spec.name].high) if spec.name in known else (0.0, 1.0)
            shape = [length or 1 for length in spec.shape]
            example[spec.name] = generator.uniform(low, high, shape).astype(spec.dtype)
        found.append(example)
    return found


def known(
    model: Model, matched: Mapping[str, tuple[str, ...]], wanted: Iterable[str]
) -> dict[str, tuple[float, float]]:
    """Range of each of these tensors that is a layer's output, operators of one scale resolved as for every target."""
    if model.statistics is None or model.kind != "keras":
        return {}
    from toolkit.engine import stored as engine

    given = {name: (found.low, found.high) for name, found in model.statistics.ranges.items()}
    tensors = engine.stored(model.graph)
    resolved = dict(given)
    for edge, source in tensors.source.items():
        names = [tensors.names[other] for other in tensors.shared.get(source, (source,))]
        if all(name in given for name in names):
            ends = [given[name] for name in names]
            resolved[tensors.names[edge]] = min(low for low, _ in ends), max(high for _, high in ends)
    found = {}
    for name in wanted:
        key = next((key for key in matched.get(name, ()) if key in resolved), None)
        if key is not None:
            found[name] = resolved[key]
    return found


def _observed(
    file: File, model: Model, inputs: tuple[TensorSpec, ...], context: ExportContext, names: list[str]
) -> dict[str, tuple[float, float]]:
    """Ranges of tensors on the file, over the calibration set."""
    if context.calibration is None:
        problem = f"no layer of the model has the range of {_few(names)}, and there are no images to find it on"
        raise InputError("calibration", problem, "give a calibration set")
    quant = model.quant
    try:
        found = observed.observe_onnx(
            file.proto, feeds.calibration(context, inputs), quant.ranges, quant.percentile, names
        )
    except UnsupportedError as error:
        example = feeds.as_keras(feeds.probe(context, inputs), inputs)
        where = written.origin(model, model.signature.outputs[0].name, example)
        raise UnsupportedError(where, f"activations have no finite range on the calibration data: {error}") from error
    return dict(found)


def derived(file: File, ranges: Ranges) -> dict[str, tuple[float, float]]:
    """Ranges of what a Mul, Add or Sub makes of a tensor that has one and a constant, as inside a Rescaling layer."""
    found = dict(ranges)
    for node in file.nodes if found else ():
        operation = {"Mul": "multiply", "Add": "add", "Sub": "subtract"}.get(node.op_type)
        if operation is None or node.output[0] in found:
            continue
        one, other = (_ends(file, name, found) for name in node.input)
        if one is not None and other is not None and any(file.values(name) is not None for name in node.input):
            found[node.output[0]] = _combined(operation, one, other)
    return {name: ends for name, ends in found.items() if name not in ranges}


def _ends(file: File, name: str, ranges: Ranges) -> tuple[float, float] | None:
    values = file.values(name)
    return ranges.get(name) if values is None else (float(values.min()), float(values.max()))


def _combined(operation: str, one: tuple[float, float], other: tuple[float, float]) -> tuple[float, float]:
    import numpy as np

    corners = [float(getattr(np, operation)(np.float32(a), np.float32(b))) for a in one for b in other]
    return min(corners), max(corners)


def joined(file: File, ranges: Ranges) -> dict[str, tuple[float, float]]:
    """One range for all that a Concat reads and gives, so that TensorRT can move its scale through."""
    found = dict(ranges)
    concatenations = [node for node in file.nodes if node.op_type == "Concat"]
    for node in (*concatenations, *reversed(concatenations)):  # one may read what another gives: there and back
        names = [name for name in (*node.input, *node.output) if name in found]
        for name in names:
            found[name] = min(found[each][0] for each in names), max(found[each][1] for each in names)
    return found


# ---------------------------------------------------------------- the graph


def pool_means(proto: Any) -> None:
    """The mean over the two sides of an image, as tf2onnx writes it, becomes the GlobalAveragePool it is: ONNX Runtime
    has an integer kernel for that, and none for ReduceMean."""
    file = File(proto)
    for node in file.nodes:
        axes, keep = _reduced(file, node)
        last = axes == {1, 2} and not keep  # channels last: what is left is (batch, channels) either way
        if node.op_type != "ReduceMean" or not (axes == {2, 3} or last) or _rank(file, node.input[0]) != 4:
            continue
        at = list(proto.graph.node).index(node)
        proto.graph.node.remove(node)
        for step in reversed(list(_pooling(node, keep=keep, last=last))):
            proto.graph.node.insert(at, step)


def _pooling(node: Any, *, keep: bool, last: bool) -> Iterator[Any]:
    import onnx

    (given, result), make = (node.input[0], node.output[0]), onnx.helper.make_node
    if last:
        yield make("Transpose", [given], [f"{result}_moved"], f"{node.name}_moved", perm=(0, 3, 1, 2))
        given = f"{result}_moved"
    pooled = result if keep else f"{result}_pooled"
    yield make("GlobalAveragePool", [given], [pooled], node.name)
    if not keep:
        yield make("Flatten", [pooled], [result], f"{node.name}_flat", axis=1)


def _reduced(file: File, node: Any) -> tuple[set[int], bool]:
    axes, keep = None, True
    for attribute in node.attribute:
        axes = list(attribute.ints) if attribute.name == "axes" else axes
        keep = bool(attribute.i) if attribute.name == "keepdims" else keep
    if axes is None and len(node.input) > 1:
        values = file.values(node.input[1])
        axes = [] if values is None else values.reshape(-1).tolist()
    return {axis % 4 for axis in axes or ()}, keep


def _rank(file: File, name: str) -> int | None:
    import onnx

    inferred = onnx.shape_inference.infer_shapes(file.proto).graph
    for value in (*inferred.value_info, *inferred.input):
        if value.name == name:
            return len(value.type.tensor_type.shape.dim)
    return None


def _few(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f", ... ({len(names)})" if len(names) > 5 else "")
