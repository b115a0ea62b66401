"""The layers of an .onnx file, with what ONNX Runtime fuses into the layer before it left out."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from math import prod
from pathlib import Path
from typing import Any

from toolkit.errors import UnsupportedError
from toolkit.estimates.workload import Kind, Layer, check_scheme, fixed
from toolkit.exporters import onnx_file, onnx_scan
from toolkit.exporters.onnx_scan import QUANTIZERS
from toolkit.exporters.onnx_session import runnable, session
from toolkit.hardware import Arithmetic

DENSE = ("Gemm", "MatMul")
FREE = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Constant", "Shape", "Cast", *QUANTIZERS})
# onnxruntime.ai, "Graph Optimizations": folded into, or done with, the convolution they follow
FUSED = frozenset({"Relu", "Clip", "LeakyRelu", "BatchNormalization", "Sigmoid", "Tanh"})
AFTER = frozenset({"Conv", "ConvTranspose", "Gemm"})


def read_onnx(path: Path, *, any_scheme: bool = False) -> tuple[Layer, ...]:
    """The layers of a file at batch 1, a free batch taken as 1. any_scheme: also where the runtime chooses types."""
    proto = _at_batch_one(onnx_file.read(path).proto)
    scheme = onnx_scan.scheme_of(onnx_file.File(proto))
    if not any_scheme:
        check_scheme(str(path), scheme)
    try:
        return _layers(path, proto, scheme)
    except UnsupportedError:
        with suppress(UnsupportedError):  # sizes that the graph computes itself, of constants alone
            return _layers(path, _folded(proto), scheme)
        raise


def _layers(path: Path, proto: Any, scheme: str) -> tuple[Layer, ...]:
    file = onnx_file.File(proto)
    reading = _Reading(str(path), file, scheme)
    return tuple(reading.layer(node) for node in file.nodes if node.op_type not in FREE and not reading.fused(node))


def _folded(proto: Any) -> Any:
    """The graph with what depends on constants alone worked out by ONNX Runtime."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory(prefix="edgekit-") as folder, runnable():
        target = str(Path(folder) / "folded.onnx")
        level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        session(proto.SerializeToString(), graph_optimization_level=level, optimized_model_filepath=target)
        return onnx.shape_inference.infer_shapes(onnx.load(target), data_prop=True)


def _at_batch_one(proto: Any) -> Any:
    """The graph with the free batch of its inputs set to 1, so that shapes computed from it are known too."""
    import onnx

    for value in proto.graph.input:
        sizes = value.type.tensor_type.shape.dim
        if len(sizes) > 1 and not sizes[0].HasField("dim_value"):
            sizes[0].dim_value = 1
    del proto.graph.value_info[:]  # said of the batch that was free
    for value in proto.graph.output:
        value.type.tensor_type.ClearField("shape")
    return onnx.shape_inference.infer_shapes(proto, data_prop=True)


class _Reading:
    """One file, while its nodes are looked at."""

    def __init__(self, where: str, file: onnx_file.File, scheme: str) -> None:
        self.where, self.file, self.scheme = where, file, scheme

    def fused(self, node: Any) -> bool:
        """Whether a node is done with the one before it: an activation that alone reads from a weighted node."""
        name = node.input[0] if node.input else ""
        if node.op_type not in FUSED:
            return False
        source = self.file.producers.get(name)
        return source is not None and source.op_type in AFTER and len(self.file.consumers.get(name, ())) == 1

    def layer(self, node: Any) -> Layer:
        arithmetic = self._arithmetic(node)
        width = {"float32": 4, "float16": 2, "int8": 1}[arithmetic]
        sizes = [prod(self._shape(name)) for name in (*node.input, *node.output) if name]
        kind = self._kind(node)
        operations = max(sizes) if kind == "other" else self._macs(node)
        return Layer(node.output[0], node.op_type, kind, arithmetic, operations, width * sum(sizes))

    def _kind(self, node: Any) -> Kind:
        if node.op_type in DENSE:
            return "dense"
        if node.op_type not in AFTER:
            return "other"
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        return "depthwise" if groups > 1 and groups == self._shape(node.input[0])[1] else "convolution"

    def _macs(self, node: Any) -> int:
        weights = self._shape(node.input[1])
        if node.op_type in DENSE:
            rows = self._shape(node.output[0])[:-1]
            kernel = weights[-2:] if node.input[1] not in self.file.constants else weights
            return prod(rows) * prod(kernel)
        where = self._shape(node.input[0] if node.op_type == "ConvTranspose" else node.output[0])
        return prod(weights) * prod(where[2:])

    def _arithmetic(self, node: Any) -> Arithmetic:
        """int8 where the node reads dequantized integers in an int8 file, which kernels then compute on."""
        if self.scheme == "float16":
            return "float16"
        source = self.file.producers.get(node.input[0]) if node.input else None
        quantized = source is not None and source.op_type == "DequantizeLinear"
        return "int8" if self.scheme == "int8" and quantized else "float32"

    def _shape(self, name: str) -> tuple[int, ...]:
        known = self.file.inferred.get(name, (0, None))[1]
        if known is None:
            source = self.file.producers.get(name)  # of stored integers: the shape of what they stand for
            if source is not None and source.op_type in QUANTIZERS:
                return self._shape(source.input[0])
            fixed(self.where, name, (None,))
            return ()
        shape = (known[0] or 1, *known[1:]) if len(known) > 1 else known
        fixed(self.where, name, shape)
        return tuple(int(size or 0) for size in shape)
