"""Puts QuantizeLinear and DequantizeLinear into an .onnx graph with ONNX Runtime's QDQQuantizer, at given scales.

Its own way to scales is not used: every tensor it quantizes is overridden. Page: onnxruntime.ai, "Quantize ONNX
models"; options for TensorRT as NVIDIA's Model Optimizer sets them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from toolkit.core import QuantSpec
from toolkit.errors import UnsupportedError
from toolkit.exporters import onnx_encodings, onnx_file
from toolkit.exporters.onnx_encodings import Encoding
from toolkit.exporters.onnx_file import File
from toolkit.exporters.onnx_matching import floats
from toolkit.exporters.onnx_placing import Placement
from toolkit.exporters.onnx_scan import WEIGHTED, has_scales_per_channel, weight_axis

INFERRED = ("onnx.infer", "onnxruntime.quant")  # onnxruntime's mark: shapes are known, need not be inferred again
# Outputs whose scale LiteRT's kernels prescribe, taken here too, so that one set of ranges serves both formats.
FIXED = {"Sigmoid": (0.0, 255 / 256), "Softmax": (0.0, 255 / 256)}


@dataclass(frozen=True)
class Stored:
    """The tensors that get a QuantizeLinear: each with the one whose scale it has, which is itself for most."""

    source: Mapping[str, str] = field(default_factory=dict)

    @property
    def own(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.source.values()))


@dataclass(frozen=True)
class Request:
    """What a file must hold: the float graph it was made of, and the encoding of each of its tensors by name."""

    float_file: File
    quant: QuantSpec
    placement: Placement = field(default_factory=Placement)
    stored: Stored = field(default_factory=Stored)
    activations: Mapping[str, Encoding] = field(default_factory=dict)
    weights: Mapping[str, Encoding] = field(default_factory=dict)


def stored(file: File, quant: QuantSpec, placement: Placement) -> Stored:
    """Find out by a trial run where the quantizer puts them."""
    if not placement.full:
        return Stored()
    quantizer = _quantizer(file, quant, placement, {})
    quantizer.quantize_model()
    found, computed = {}, {*file.producers, *(spec.name for spec in file.inputs)}
    for name, value in quantizer.quantized_value_map.items():
        if name in computed and name not in file.constants:  # it copies a bias that two nodes read, under a new name
            found[name] = value.original.scale_name.removesuffix("_scale")
    return Stored(found)


def bounded(file: File, name: str, low: float, high: float) -> tuple[float, float]:
    """A range cut to what the operator that computes the tensor can give at all."""
    node = file.producers.get(name)
    if node is None:
        return low, high
    if node.op_type in FIXED:
        return FIXED[str(node.op_type)]
    ends = {"Relu": (0.0, float("inf"))}.get(node.op_type) or (_clip(file, node) if node.op_type == "Clip" else None)
    return (max(low, ends[0]), min(high, ends[1])) if ends else (low, high)


def request(
    file: File, quant: QuantSpec, placement: Placement, where: Stored, ranges: Mapping[str, tuple[float, float]]
) -> Request:
    """The encodings of all tensors; ranges: of each of `where.own`."""
    own = {name: onnx_encodings.activation(*ranges[name], quant.flavour) for name in where.own if name in ranges}
    activations = {name: own[source] for name, source in where.source.items()}
    for node in file.nodes:  # what Add and Mul have for constants is rounded as activations are
        for name in node.input if node.name in placement.full and node.op_type in ("Add", "Mul", "Concat") else ():
            values = file.values(name)
            if values is not None and values.size and values.dtype.kind == "f":
                ends = float(values.min()), float(values.max())
                activations[name] = onnx_encodings.activation(*ends, quant.flavour)
    return Request(file, quant, placement, where, activations, _weights(file, quant, placement, activations))


def in_float16(asked: Request) -> Request:
    """The same with scales that are float16 numbers, so that files typed float32 and float16 hold the same integers."""
    activations, weights = (
        {name: encoding.in_float16() for name, encoding in each.items()} for each in (asked.activations, asked.weights)
    )
    return replace(asked, activations=activations, weights=weights)


def write(asked: Request) -> Any:
    """A new ModelProto in Q/DQ form."""
    proto = _copy(asked.float_file.proto)
    if asked.placement.full:
        overrides = {name: _override(encoding) for name, encoding in (*asked.activations.items(), *_full(asked))}
        proto = _quantizer(asked.float_file, asked.quant, asked.placement, overrides).quantize_model()
        if asked.quant.flavour == "symmetric":
            _fuse_residuals(proto)
    for name in asked.placement.weights:
        _store_weight(proto, name, asked)
    clean(proto)
    return proto


# ---------------------------------------------------------------- ONNX Runtime's quantizer


def _quantizer(file: File, quant: QuantSpec, placement: Placement, overrides: dict[str, Any]) -> Any:
    import numpy as np
    import onnx
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.calibrate import TensorData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    proto = onnx.shape_inference.infer_shapes(file.proto)
    onnx.helper.set_model_props(proto, dict([INFERRED]))
    kinds = sorted({node.op_type for node in file.nodes})
    symmetric = quant.flavour == "symmetric"
    options: dict[str, Any] = {
        "ActivationSymmetric": symmetric,
        "WeightSymmetric": True,
        "ForceQuantizeNoInputCheck": True,  # what moves values works on integers wherever it stands
        "QDQDisableWeightAdjustForInt32Bias": True,  # the scales given see to that
        "TensorQuantOverrides": overrides,
    }
    if symmetric:
        options |= {"QuantizeBias": False, "AddQDQPairToWeight": True, "OpTypesToExcludeOutputQuantization": kinds}
    unit = TensorData(lowest=np.float32(0), highest=np.float32(1))
    return QDQQuantizer(
        proto,
        per_channel=quant.granularity == "per_channel",
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8 if symmetric else QuantType.QUInt8,
        tensors_range=dict.fromkeys(floats(file), unit),
        nodes_to_quantize=list(placement.full),
        nodes_to_exclude=[],
        op_types_to_quantize=kinds,
        extra_options=options,
    )


def _full(asked: Request) -> list[tuple[str, Encoding]]:
    """The weights that the quantizer is to write, without those that are stored in int8 alone."""
    read = {node.input[1] for node in asked.float_file.nodes if node.name in asked.placement.full and _weighted(node)}
    return [(name, encoding) for name, encoding in asked.weights.items() if name in read]


def _override(encoding: Encoding) -> list[dict[str, Any]]:
    import numpy as np

    zero = np.array(encoding.zero_point, encoding.dtype)
    if encoding.axis is None:
        return [{"scale": encoding.scale, "zero_point": zero}]
    return [{"scale": scale, "zero_point": zero, "axis": encoding.axis} for scale in encoding.scale]


# ---------------------------------------------------------------- weights


def _weighted(node: Any) -> bool:
    return node.op_type in WEIGHTED


def _weights(
    file: File, quant: QuantSpec, placement: Placement, activations: Mapping[str, Encoding]
) -> dict[str, Encoding]:
    import numpy as np

    found: dict[str, Encoding] = {}
    for node in file.nodes:
        values = file.values(node.input[1]) if _weighted(node) else None
        if values is None or node.name not in (*placement.full, *placement.weights):
            continue
        name, bias = node.input[1], None
        if node.name in placement.full and quant.flavour == "asymmetric":
            bias = file.values(node.input[2]) if len(node.input) > 2 else None
        axis, per_channel = weight_axis(node), has_scales_per_channel(node, quant)
        if bias is not None and per_channel and bias.size != values.shape[axis]:
            problem = f"node {node.name} has {bias.size} outputs and {values.shape[axis]} weight scales"
            raise UnsupportedError(node.name, problem, 'keep the layer in float32, or use granularity = "per_tensor"')
        given = activations.get(node.input[0])
        own = onnx_encodings.weight(
            values,
            axis=axis if per_channel else None,
            reduced=quant.reduce_range,
            bias=bias,
            of_input=float(given.scale) if given is not None else 1.0,
        )
        before = found.get(name)  # weights of several nodes
        scale = own.scale if before is None else np.maximum(own.scale, before.scale)
        found[name] = Encoding(scale, 0, own.dtype, own.axis)
    return found


def _store_weight(proto: Any, node_name: str, asked: Request) -> None:
    """int8 weights behind a DequantizeLinear, everything else in float."""
    import numpy as np
    import onnx

    graph = proto.graph
    node = next(each for each in graph.node if each.name == node_name)
    original = next(each for each in asked.float_file.nodes if each.name == node_name).input[1]
    encoding, result = asked.weights[original], f"{original}_int8_DequantizeLinear_Output"
    if result not in {name for each in graph.node for name in each.output}:
        values = asked.float_file.values(original)
        arrays = {
            f"{original}_int8": encoding.integers(values),  # type: ignore[arg-type]
            f"{original}_int8_scale": encoding.scale,
            f"{original}_int8_zero_point": np.zeros(encoding.scale.shape, np.int8),
        }
        graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in arrays.items())
        axis = {} if encoding.axis is None else {"axis": encoding.axis}
        name = f"{original}_int8_DequantizeLinear"
        graph.node.append(onnx.helper.make_node("DequantizeLinear", list(arrays), [result], name, **axis))
    node.input[1] = result


# ---------------------------------------------------------------- after it


def _fuse_residuals(proto: Any) -> None:
    """Of an Add, the input that a convolution computes for it alone reads that convolution directly: TensorRT fuses
    the sum into it, and its output is never rounded. Where both could, it is the end of the longer path, as NVIDIA's
    Model Optimizer has it: a block's branch, not the convolution on its shortcut."""
    file = File(proto)
    outputs = {value.name for value in proto.graph.output}
    depths = file.depths
    for node in file.nodes:
        fusible: dict[int, str] = {}
        for index, name in enumerate(node.input if node.op_type == "Add" else ()):
            start = _before_pair(file, name)
            maker = file.producers.get(start) if start else None
            readers = [reader for end in _after_pair(file, start) for reader in file.consumers.get(end, [])]
            alone = len(readers) == 1 and start not in outputs
            if start and maker is not None and maker.op_type in ("Conv", "ConvTranspose") and alone:
                fusible[index] = start
        if fusible:
            index = max(fusible, key=lambda each: (depths[fusible[each]], each))
            node.input[index] = fusible[index]


def _before_pair(file: File, name: str) -> str | None:
    """What goes into the Q/DQ pair that gives this tensor."""
    dequantize = file.producers.get(name)
    quantize = file.producers.get(dequantize.input[0]) if dequantize is not None else None
    if dequantize is None or quantize is None or quantize.op_type != "QuantizeLinear":
        return None
    return str(quantize.input[0])


def _after_pair(file: File, start: str | None) -> list[str]:
    """What comes out of the Q/DQ pairs that read this tensor, and the tensor itself where others read it too."""
    ends = []
    for reader in file.consumers.get(start or "", []):
        pair = reader.op_type == "QuantizeLinear"
        ends += [name for each in file.consumers.get(reader.output[0], []) for name in each.output] if pair else [start]
    return [str(name) for name in ends]


def clean(proto: Any) -> None:
    """Without what nothing reads, in an order the format allows, without the quantizer's marks."""
    graph = proto.graph
    ends = {value.name for value in graph.output}
    while True:
        read = {name for node in graph.node for name in node.input} | ends
        dead = [node for node in graph.node if not set(node.output) & read]
        if not dead:
            break
        for node in dead:
            graph.node.remove(node)
    constants = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(constants)
    del proto.metadata_props[:]
    del graph.value_info[:]
    onnx_file.sort_nodes(proto)


def _clip(file: File, node: Any) -> tuple[float, float]:
    low, high = ([file.values(name) if name else None for name in node.input[1:]] + [None, None])[:2]
    return (
        float(low) if low is not None else float("-inf"),
        float(high) if high is not None else float("inf"),
    )


def _copy(proto: Any) -> Any:
    import onnx

    copied = onnx.ModelProto()
    copied.CopyFrom(proto)
    return copied
