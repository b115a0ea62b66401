"""What TensorRT's parser ends at: quantization that it does not read, operators and types that it does not have.

Read off tensorrt_rtx 1.7.1's parser, which is NVIDIA's own on a CPU; others may differ in details.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from toolkit.tensorrt.lint_flow import Flow
from toolkit.tensorrt.lint_graph import STANDARD, Graph, attribute, type_name
from toolkit.tensorrt.lint_target import Wants
from toolkit.tensorrt.lint_types import Finding

# OnnxParser.supports_operator of tensorrt_rtx 1.7.1 says no, of all operators of onnx 1.23.
MISSING = frozenset({
    *("AffineGrid", "Bernoulli", "BitCast", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor"),
    *("CenterCropPad", "Col2Im", "Compress", "ConcatFromSequence", "ConvInteger", "CumProd", "DFT", "DeformConv"),
    *("Det", "DynamicQuantizeLinear", "ImageDecoder", "MatMulInteger", "MaxRoiPool", "MaxUnpool"),
    *("MelWeightMatrix", "Multinomial", "NegativeLogLikelihoodLoss", "Optional", "OptionalGetElement"),
    *("OptionalHasElement", "QLinearConv", "QLinearMatMul", "RegexFullMatch", "SequenceAt"),
    *("SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert", "SequenceLength"),
    *("SequenceMap", "SoftmaxCrossEntropyLoss", "SplitToSequence", "StringConcat", "StringNormalizer"),
    *("StringSplit", "SwiGLU", "TfIdfVectorizer", "Unique"),
})  # fmt: skip
INTEGER_OPERATORS = ("QLinear", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")  # prefixes
UINT8 = 2  # TensorProto.UINT8
# Element types that there is no TensorRT type for.
FOREIGN = ("INT16", "UINT16", "UINT32", "UINT64", "STRING", "COMPLEX64", "COMPLEX128", "UINT4", "INT2", "UINT2",
           "FLOAT8E4M3FNUZ", "FLOAT8E5M2", "FLOAT8E5M2FNUZ", "FLOAT8E8M0")  # fmt: skip
# All inputs must have one type; of Where those after the condition.
ALIKE = ("Add", "Sub", "Mul", "Div", "Max", "Min", "PRelu", "Concat", "Conv", "ConvTranspose", "Gemm", "MatMul",
         "Where")  # fmt: skip
SYMMETRIC = 'quantize with flavour = "symmetric"'


def findings(flow: Flow, wants: Wants) -> Iterator[Finding]:
    """In the order of the file's nodes, rule by rule."""
    for node in flow.graph.nodes:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            yield from _quantization(flow, node)
        yield from _operator(flow.graph, node, wants)
        yield from _types(flow.graph, node)
    yield from _tensors(flow.graph)


# ---------------------------------------------------------------- Q and DQ


def _quantization(flow: Flow, node: Any) -> Iterator[Finding]:
    graph, where = flow.graph, flow.graph.where(node)
    kind = _quantized_type(graph, node)
    if kind == "INT32":
        what = "the parser refuses a DequantizeLinear of int32 values, as other tools write them for biases"
        yield Finding("bias-int32", "refused", where, what, "leave biases in floating point")
    elif kind == "UINT8" and node.op_type == "DequantizeLinear" and flow.quantizer(node) is None:
        yield Finding("unsigned", "refused", where, "the parser refuses stored or given uint8 values", SYMMETRIC)
    zero = graph.values(node.input[2]) if len(node.input) > 2 and node.input[2] else None
    if zero is not None and zero.astype("float32").any():
        what = f"the parser refuses a zero point other than 0 (here {zero.reshape(-1)[0]})"
        yield Finding("zero-point", "refused", where, what, SYMMETRIC)
    yield from _scales(flow, node, where)


def _scales(flow: Flow, node: Any, where: str) -> Iterator[Finding]:
    graph, scales = flow.graph, flow.scales(node)
    if scales is None:
        if not graph.is_constant(node.input[1]):
            what = "its scale is computed at run time; the parser of tensorrt_rtx 1.7.1 crashes at such a file"
            yield Finding("scale-not-constant", "refused", where, what, "quantize with static ranges")
        return
    if not (scales.astype("float64") > 0).all():  # NaN is not above 0 either
        what = "the parser refuses a scale that is not above 0"
        yield Finding("scale-not-positive", "refused", where, what, "give a channel of zeros any scale above 0")
    block, shape = attribute(node, "block_size", 0), graph.shape(node.input[0])
    axis = attribute(node, "axis", 1)
    if shape is None or not -len(shape) <= axis < max(len(shape), 1):
        return
    if block and axis % len(shape) < len(shape) - 2:
        what = "the parser takes blocks along the last two axes only"
        yield Finding("blocks", "refused", where, what, "use one scale for each output channel")
    elif not block and scales.size > 1 and shape[axis % len(shape)] not in (None, scales.size):
        what = f"{scales.size} scales for {shape[axis % len(shape)]} channels along axis {axis}"
        yield Finding("scale-count", "refused", where, what, "write one scale for each channel")


def _quantized_type(graph: Graph, node: Any) -> str:
    """Type of the integers of a Q or DQ."""
    name = node.output[0] if node.op_type == "QuantizeLinear" else node.input[0]
    return type_name(graph.types.get(name, 0))


# ---------------------------------------------------------------- operators


def _operator(graph: Graph, node: Any, wants: Wants) -> Iterator[Finding]:
    where, kind = graph.where(node), str(node.op_type)
    if kind.startswith(INTEGER_OPERATORS):
        what = "the parser has no integer operators (QOperator form, dynamic quantization)"
        yield Finding("integer-operator", "refused", where, what, f"use static ranges in Q/DQ form: {SYMMETRIC}")
    elif kind in MISSING or (kind == "NonZero" and wants.rtx):  # a plugin that only the whole TensorRT has
        yield Finding("operator", "refused", where, f"the parser does not have {kind}", "replace the layer")
    elif node.domain not in STANDARD and not _standard(kind):
        what = f"an operator of {node.domain}: the parser looks for a plugin of that name"
        yield Finding("operator", "refused", where, what, "replace the layer, or load the plugin where it is built")
    problem = _form(graph, node)
    if problem:
        yield Finding("operator-form", "refused", where, f"the parser does not take {problem}", "change the layer")


def _standard(kind: str) -> bool:
    """Whether ONNX has an operator of that name: the parser looks at names alone."""
    import onnx

    return bool(onnx.defs.has(kind))


def _form(graph: Graph, node: Any) -> str:
    """A form of an operator that the parser has not, in words; "" for one that it may take."""
    kind = node.op_type
    if kind in ("MaxPool", "BatchNormalization") and sum(map(bool, node.output)) > 1:
        return "more than one output of it"
    if kind in ("MaxPool", "AveragePool") and any(each != 1 for each in attribute(node, "dilations", [])):
        return "dilations of pooling"
    if kind == "BatchNormalization" and attribute(node, "training_mode", 0):
        return "its training form"
    if kind == "Resize" and attribute(node, "antialias", 0):
        return "antialiasing"
    if kind == "Resize" and attribute(node, "coordinate_transformation_mode", b"") == b"tf_crop_and_resize":
        return "tf_crop_and_resize"
    training = graph.values(node.input[2]) if kind == "Dropout" and len(node.input) > 2 else None
    return "its training form" if training is not None and training.any() else ""


# ---------------------------------------------------------------- types


def _types(graph: Graph, node: Any) -> Iterator[Finding]:
    if node.op_type in ALIKE:
        names = node.input[1:] if node.op_type == "Where" else node.input
        kinds = list(dict.fromkeys(graph.types[name] for name in names if graph.types.get(name)))
        if len(kinds) > 1:
            what = f"its inputs are {' and '.join(map(type_name, kinds))}; the parser wants one type"
            fix = "cast one of them; float16 files are strongly typed throughout"
            yield Finding("mixed-types", "refused", graph.where(node), what, fix)
    if node.op_type == "Cast" and type_name(attribute(node, "to", 0)) in FOREIGN:
        what = f"TensorRT has no {type_name(attribute(node, 'to'))}"
        yield Finding("type", "refused", graph.where(node), what, "cast to INT32")
    inner = node.op_type == "Cast" and attribute(node, "to") == UINT8 and node.output[0] in graph.consumers
    read = node.op_type not in ("Cast", "DequantizeLinear") and any(
        name in graph.inputs and graph.types.get(name) == UINT8 for name in node.input
    )
    if inner or read:
        what = "the parser takes uint8 at the ends of the network alone, behind and before a Cast"
        yield Finding("uint8", "refused", graph.where(node), what, "cast the uint8 input to float first")


def _tensors(graph: Graph) -> Iterator[Finding]:
    """Inputs and constants of types that TensorRT has not, values between layers, and names that nothing gives."""
    for name, tensor in {**graph.constants, **graph.inputs}.items():
        kind = type_name(graph.types.get(name, 0))
        read = name in graph.consumers or name in graph.inputs or name in graph.outputs
        if kind in FOREIGN and (read or hasattr(tensor, "data_type")):
            end = "input" if name in graph.inputs else "constant"
            yield Finding("type", "refused", f"{end} {name}", f"TensorRT has no {kind}", "use FLOAT, INT32 or INT8")
    given = {*graph.inputs, *graph.constants, *graph.producers, ""}
    for name in dict.fromkeys(each for node in graph.nodes for each in node.input):
        if name not in given:
            reader = graph.where(graph.consumers[name][0])
            yield Finding("undefined", "refused", reader, f"nothing gives its input {name}", "export the model again")
