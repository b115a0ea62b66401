"""What is worth knowing of a file: versions that do not read it, types that are narrowed, numbers that overflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from toolkit.tensorrt.lint_flow import CONVOLUTIONS, Flow
from toolkit.tensorrt.lint_graph import Graph, type_name
from toolkit.tensorrt.lint_target import Wants
from toolkit.tensorrt.lint_types import Finding, Severity

FLOAT, FLOAT16, DOUBLE, INT64, UINT8 = 1, 10, 11, 7, 2  # TensorProto's element types
FLOAT16_MAX = 65504.0
# Sums and powers that leave float16's range first (NVIDIA's AutoCast keeps such layers in float32 by their data).
WIDE = ("Softmax", "LogSoftmax", "LayerNormalization", "InstanceNormalization", "Exp", "Pow", "ReduceSum", "ReduceL2",
        "ReduceSumSquare", "ReduceLogSumExp")  # fmt: skip
CHANNELS_FIRST = [0, 3, 1, 2]  # the order of axes that turns channels-last images round
OLDEST = 17  # highest operator set of TensorRT 8.5


def findings(flow: Flow, wants: Wants) -> Iterator[Finding]:
    """Of the whole file, then of quantization, then of its numbers."""
    graph = flow.graph
    yield from _opset(graph, wants)
    yield from _ends(graph)
    yield from _layout(graph)
    if flow.quantizers or flow.dequantizers:
        yield from _int8(flow, wants)
        yield from _quantized(flow, wants)
    yield from _rest(flow, wants)
    yield from _numbers(graph)


def floats(graph: Graph) -> str:
    """float32, float16, or mixed: what a file's layers compute in where it is not int8."""
    inner = {graph.types.get(name) for node in graph.nodes for name in node.output if node.op_type != "Cast"}
    kinds = {"float16" if kind == FLOAT16 else "float32" for kind in inner if kind in (FLOAT, FLOAT16, DOUBLE)}
    return "mixed" if len(kinds) > 1 else next(iter(kinds), "float32")


# ---------------------------------------------------------------- the file


def _opset(graph: Graph, wants: Wants) -> Iterator[Finding]:
    where, known = f"operator set {graph.opset}", wants.opset
    if known is not None and graph.opset > known:
        severity: Severity = "note" if wants.rtx else "refused"
        what = (
            f"{wants.name} is known to read operator sets up to {known}; what it does with newer ones is not verified"
        )
        yield Finding("opset", severity, where, what, f"export with opset {min(known, 17)}, or use a newer TensorRT")
    elif known is None and graph.opset > OLDEST:
        what = f"TensorRT 8.5 and 8.6 read operator sets up to {OLDEST}, 10.0 up to 20, 10.15 up to 24, 11 up to 25"
        yield Finding("opset", "note", where, what, f"for older ones export with opset {OLDEST}")


def _ends(graph: Graph) -> Iterator[Finding]:
    for name, value in graph.inputs.items():
        kind = graph.types.get(name, 0)
        if kind in (INT64, DOUBLE):
            what = f"{type_name(kind)}: TensorRT 8 narrows it to {'INT32' if kind == INT64 else 'FLOAT'}"
            yield Finding("wide-input", "note", f"input {name}", what, "take INT32 or FLOAT")
        shape = graph.shape(name)
        free = shape is None or None in shape
        if free and value.type.HasField("tensor_type"):
            text = "x".join("?" if size is None else str(size) for size in shape or ("?",))
            what = f"its shape is free ({text}): a build needs a profile, its least, usual and greatest shape"
            flags = " ".join(f"--{which}Shapes={name}:..." for which in ("min", "opt", "max"))
            fix = f"trtexec {flags}; a DLA takes fixed shapes alone"
            yield Finding("profile", "note", f"input {name}", what, fix)
    if DOUBLE in graph.types.values():
        what = "float64 inside: TensorRT has no such layers and computes in float32"
        yield Finding("double", "note", "the file", what, "export in float32")


def _layout(graph: Graph) -> Iterator[Finding]:
    for node in graph.nodes:
        if node.op_type == "Transpose" and node.input[0] in graph.inputs:
            order = next((list(each.ints) for each in node.attribute if each.name == "perm"), [])
            if order == CHANNELS_FIRST:
                what = "images come channels last: the first thing done is to turn them round"
                yield Finding("layout", "note", graph.where(node), what, 'export with layout = "NCHW"')


# ---------------------------------------------------------------- quantization


def _int8(flow: Flow, wants: Wants) -> Iterator[Finding]:
    if wants.no_int8:
        what = f"compute capability {wants.capability} has no int8 kernels; not verified on a device"
        yield Finding("no-int8", "refused", "the file", what, "export a float16 file for it")


def _quantized(flow: Flow, wants: Wants) -> Iterator[Finding]:
    graph = flow.graph
    for node in flow.quantizers:
        kind = graph.types.get(node.output[0])
        if kind == UINT8 or (kind is None and len(node.input) < 3):
            what = "uint8 with zero point 0 is read as int8: values above 127 steps would be cut off (not verified)"
            yield Finding("unsigned", "note", graph.where(node), what, 'quantize with flavour = "symmetric"')
        if graph.types.get(node.input[1]) == FLOAT16 and graph.opset < 19:
            what = f"float16 scales came with operator set 19, the file says {graph.opset}: other parsers refuse it"
            yield Finding("float16-scale", "note", graph.where(node), what, "export with opset 19")
    for node in flow.dequantizers:
        quantize = flow.quantizer(node)
        if quantize is not None and flow.scale_key(quantize) != flow.scale_key(node):
            what = "its scale is not that of the QuantizeLinear before it: the values change on the way"
            yield Finding("unlike-pair", "note", graph.where(node), what, "write both with one scale")
        if quantize is None and node.input[0] in graph.constants and (wants.major is None or wants.major < 9):
            what = "weights are stored as int8 behind a lone DequantizeLinear: not verified on TensorRT 8"
            yield Finding("dequantize-only", "note", graph.where(node), what, "store float weights behind a whole pair")
    yield from _weights(flow)


def _weights(flow: Flow) -> Iterator[Finding]:
    for node in flow.graph.nodes:
        weight = flow.weight(node) if node.op_type in CONVOLUTIONS else None
        scales = flow.scales(weight) if weight is not None else None
        if weight is None or scales is None:
            continue
        if node.op_type == "ConvTranspose" and scales.size > 1:
            what = "a scale for each channel of a transposed convolution is fragile: some builders end there"
            yield Finding(
                "transposed-scales", "note", flow.graph.where(node), what, "one scale for its weights, or float"
            )
        if scales.size == 1 and (flow.graph.shape(weight.output[0]) or (1,))[0] != 1 and node.op_type == "Conv":
            what = "one scale for all its weights: accuracy may suffer where TensorRT takes one for each channel"
            yield Finding("weights-per-tensor", "note", flow.graph.where(node), what, 'granularity = "per_channel"')


# ---------------------------------------------------------------- what is not int8


def _rest(flow: Flow, wants: Wants) -> Iterator[Finding]:
    kind, quantized = floats(flow.graph), bool(flow.quantizers or flow.dequantizers)
    if kind == "float32":
        what = "what is not int8 is float32" if quantized else "everything is float32"
        severity: Severity = "slow" if wants.strong and quantized else "note"
        typed = f"{what}: a strongly typed engine (TensorRT 11, 10 when asked) computes it in float32"
        loose = "weakly typed ones (8.5 to 10) may use float16 when built with it"
        fix = 'export with rest = "float16"' if quantized else "export float16 or int8"
        yield Finding("float32-rest", severity, "the file", typed if wants.strong else f"{typed}; {loose}", fix)
    casts = Counter(node.op_type for node in flow.graph.nodes if node.op_type == "Cast" and _narrows(flow.graph, node))
    inner = casts["Cast"] - len(flow.graph.inputs) - len(flow.graph.outputs)
    if kind == "mixed" and inner > 0:
        what = f"{inner} changes between float16 and float32 inside the network, each a conversion that must be fused"
        yield Finding("casts", "note", "the file", what, "keep fewer layers in float32")


def _narrows(graph: Graph, node: Any) -> bool:
    return {graph.types.get(node.input[0]), graph.types.get(node.output[0])} == {FLOAT, FLOAT16}


def _numbers(graph: Graph) -> Iterator[Finding]:
    """Numbers that float16 does not have."""
    import numpy as np

    for node in graph.nodes:
        for name in node.input if node.op_type != "Clip" else ():  # whose bounds may be anything
            values = graph.values(name) if graph.types.get(name) in (FLOAT, FLOAT16) else None
            if values is None or not values.size:
                continue
            largest = float(np.abs(values.astype(np.float64)).max())
            if not largest <= FLOAT16_MAX:  # NaN neither
                what = f"a constant of {largest:.4g}: float16 ends at {FLOAT16_MAX:.0f}"
                yield Finding("float16-range", "note", graph.where(node), what, "keep the layer in float32")
        if node.op_type in WIDE and node.output and graph.types.get(node.output[0]) == FLOAT16:
            what = "computed in float16, whose range its sums or powers may leave"
            yield Finding(
                "float16-sums", "note", graph.where(node), what, "compare with float32; keep it there if needed"
            )
