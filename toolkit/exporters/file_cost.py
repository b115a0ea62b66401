"""Parameters and multiply-accumulates (MACs) of a model of any kind, for one image; None where they cannot be read.

Of files by the convention of `engine.cost`: `kernel values x output positions` of convolutions and dense layers,
nothing for what is folded or fused. What has no static shape is not guessed.
"""

from __future__ import annotations

from math import prod
from pathlib import Path
from typing import Any

from toolkit.core import Model
from toolkit.exporters import onnx_file, onnx_scan, tflite_file, tflite_scan


def count(model: Model) -> tuple[int | None, int | None]:
    """(parameters, MACs)."""
    if model.kind == "keras":
        from toolkit.engine.cost import cost

        counted = cost(model.graph)
        return counted.parameters, counted.macs
    if model.kind == "savedmodel":
        return None, None  # its graph is known only once it is frozen, for a file; its source counts its variables
    return tflite_count(model.graph) if model.kind == "tflite" else onnx_count(model.graph)


def tflite_count(path: Path) -> tuple[int, int | None]:
    """(parameters, MACs) of a .tflite file. Parameters: the values of weights and biases of its weighted operators."""
    file = tflite_file.read(path)
    macs: int | None = 0
    seen: dict[int, int] = {}
    stored = {id(op.outputs[0]): op.inputs[0] for op in file.operators if op.kind == "DEQUANTIZE"}
    for operator, weights, _ in tflite_scan.weights(file):
        for tensor in operator.inputs[1:]:
            constant = stored.get(id(tensor), tensor)
            if constant is not None and constant.data is not None:
                seen[id(constant)] = prod(constant.shape)
        # a transposed convolution applies its kernel at each input position, a dense layer once for each row
        data = operator.inputs[2 if operator.kind == "TRANSPOSE_CONV" else 0]
        shape = data.shape if operator.kind == "TRANSPOSE_CONV" and data else operator.outputs[0].shape
        if any(size < 1 for size in shape):
            macs = None
        if macs is not None:
            macs += prod(shape[:-1]) * prod(weights.shape)
    return sum(seen.values()), macs


def onnx_count(path: Path) -> tuple[int, int | None]:
    """(parameters, MACs) of an .onnx file. Parameters: the values of its float constants of one dimension or more."""
    import onnx

    proto = onnx_file.read(path).proto
    file = onnx_file.File(onnx.shape_inference.infer_shapes(proto))
    shapes = _shapes(file)
    parameters = sum(
        prod(tensor.dims)
        for tensor in file.constants.values()
        if tensor.dims and tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.INT8)
    )
    macs: int | None = 0
    for node in file.nodes:
        if node.op_type in onnx_scan.WEIGHTED and macs is not None:
            found = _onnx_macs(node, file, shapes)
            macs = None if found is None else macs + found
    return parameters, macs


def _onnx_macs(node: Any, file: onnx_file.File, shapes: dict[str, tuple[int | None, ...]]) -> int | None:
    """MACs of one weighted node: of a product of two computed tensors too, since both shapes are known."""
    weights = shapes.get(node.input[1])
    where = shapes.get(node.input[0] if node.op_type == "ConvTranspose" else node.output[0])
    if not weights or not where or None in weights:
        return None
    positions = where[2:] if node.op_type.startswith("Conv") else where[1:-1]
    if None in positions:
        return None
    kernel = prod(size or 0 for size in weights)
    if node.op_type == "MatMul" and len(weights) > 2 and node.input[1] not in file.constants:
        kernel = (weights[-1] or 0) * (weights[-2] or 0)
    return kernel * prod(size or 0 for size in positions)


def _shapes(file: onnx_file.File) -> dict[str, tuple[int | None, ...]]:
    graph = file.proto.graph
    found: dict[str, tuple[int | None, ...]] = {}
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        if kind.HasField("shape"):
            found[value.name] = tuple(d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim)
    found |= {name: tuple(tensor.dims) for name, tensor in file.constants.items()}
    for node in file.nodes:  # quantized weights have the shape of their integers
        if node.op_type == "DequantizeLinear" and node.input[0] in found:
            found.setdefault(node.output[0], found[node.input[0]])
    return found
