"""What a written .onnx file must hold for its scheme, read back from the file itself.

Q/DQ form: onnxruntime.ai, "Quantize ONNX models". Operators: onnx.ai, "ONNX Operators".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from toolkit.core import QuantSpec, Scheme
from toolkit.errors import UnsupportedError
from toolkit.exporters.onnx_file import File

Locate = Callable[[str], str | None]  # name of an operation or tensor -> Keras layer

FLOAT16_MAX = 65504.0
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
# Give on the values they took in, whatever their type; Resize and MaxPool too, on the scale of their input.
MOVING = ("Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "MaxPool", "Slice", "Split", "Pad", "Resize",
          "Gather", "Identity")  # fmt: skip
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


def scan(file: File, quant: QuantSpec, locate: Locate) -> tuple[str, ...]:
    """Notes on what a file of this scheme left as it was; raises UnsupportedError for what must not be."""
    standard_only(file, locate)
    if quant.scheme in ("int8", "weight_int8"):
        for node in file.nodes:
            if node.op_type in WEIGHTED and not quant.layers:
                _quantized_weights(file, node, quant, locate)
        if quant.scheme == "weight_int8" or quant.flavour == "symmetric":
            return ()
        return tuple(_left(file, locate, "stays in floating point", partial(_computes_float, file, _integers(file))))
    if quant.scheme == "float16":
        return tuple(_left(file, locate, "stays in float32", partial(_reads_wide, file)))
    return ()


def standard_only(file: File, locate: Locate) -> None:
    """Raise for an operator that is not in the file's ONNX operator set."""
    import onnx

    version = next(entry.version for entry in file.proto.opset_import if entry.domain in ("", "ai.onnx"))
    for node in file.nodes:
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type, version, ""):
            problem = f"its operator {node.op_type} has no ONNX form in operator set {version}"
            raise UnsupportedError(layer_of(file, node, locate), problem, "replace the layer")


def fits_float16(file: File, locate: Locate) -> None:
    """Raise for a constant that float16 cannot hold."""
    import numpy as np

    for node in file.nodes:
        for name in node.input:
            values = file.values(name)
            if values is None or values.dtype != np.float32 or not values.size:
                continue
            largest = float(np.abs(values[np.isfinite(values)]).max(initial=0.0))
            if largest > FLOAT16_MAX:
                problem = f"a constant of {largest:.4g} overflows float16 (largest {FLOAT16_MAX:.0f})"
                raise UnsupportedError(layer_of(file, node, locate), problem, "use scheme float32 or int8")


def scheme_of(file: File) -> Scheme:
    """How a file is quantized, by its operators and the type its constants are stored in."""
    kinds = {node.op_type for node in file.nodes}
    if "QuantizeLinear" in kinds:
        return "int8"
    if "DequantizeLinear" in kinds:
        return "weight_int8"
    float16 = 10  # TensorProto.FLOAT16
    return "float16" if any(tensor.data_type == float16 for tensor in file.constants.values()) else "float32"


def layer_of(file: File, node: Any, locate: Locate) -> str:
    """The Keras layer of a node: by its own names, else by those of the nodes that read it (fusion invents names)."""
    readers = [reader for name in node.output for reader in file.consumers.get(name, [])]
    names = [node.name, *node.output, *node.input[1:]]
    names += [name for reader in readers for name in (reader.name, *reader.output)]
    return next(filter(None, map(locate, names)), node.name or node.op_type)


def weight_axis(node: Any) -> int:
    """Axis of the output channels in a weighted node's second input."""
    if node.op_type == "Gemm":
        transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
        return 0 if transposed else 1
    return {"Conv": 0, "ConvTranspose": 1, "MatMul": -1}[str(node.op_type)]


def has_scales_per_channel(node: Any, quant: QuantSpec) -> bool:
    """Whether a weighted node is to have one weight scale for each output channel.

    Not a transposed convolution in the symmetric flavour: builders of TensorRT are reported to end there.
    """
    dense = node.op_type in ("Gemm", "MatMul") and quant.dense_per_tensor
    transposed = node.op_type == "ConvTranspose" and quant.flavour == "symmetric"
    return quant.granularity == "per_channel" and not dense and not transposed


def _quantized_weights(file: File, node: Any, quant: QuantSpec, locate: Locate) -> None:
    import numpy as np

    source: Any = file.producers.get(node.input[1])
    stored = _stored(file, source) if source is not None and source.op_type == "DequantizeLinear" else None
    if stored is None and file.values(node.input[1]) is None:
        return  # a product of two computed tensors has no weights
    where = layer_of(file, node, locate)
    if stored is None or stored.dtype != np.int8:
        problem = f"the weights of node {node.name} ({node.op_type}) stay in floating point in an int8 file"
        raise UnsupportedError(where, problem)
    scales = file.values(source.input[1])
    count = stored.shape[weight_axis(node)] if has_scales_per_channel(node, quant) else 1
    if scales is None or scales.size != count:
        found = 0 if scales is None else scales.size
        problem = f"node {node.name} ({node.op_type}) has {found} weight scales, {quant.granularity} asks for {count}"
        raise UnsupportedError(where, problem, "ask for the other granularity")
    if not (np.isfinite(scales).all() and (scales > 0).all()):
        raise UnsupportedError(where, f"node {node.name} ({node.op_type}) has a weight scale that is not above 0")


def _stored(file: File, dequantize: Any) -> Any:
    """int8 weights behind a DequantizeLinear, or what a QuantizeLinear of constants gives it."""
    values = file.values(dequantize.input[0])
    quantize = file.producers.get(dequantize.input[0])
    if values is not None or quantize is None or quantize.op_type != "QuantizeLinear":
        return values
    kept, zero = file.values(quantize.input[0]), file.values(quantize.input[2])
    return None if kept is None or zero is None else kept.astype(zero.dtype)


def floats(file: File) -> list[Any]:
    """Nodes that compute in floating point between others of an int8 file; ONNX Runtime may still fuse some of them."""
    integers = _integers(file)
    spared = (*QUANTIZERS, *MOVING, "Cast", "Constant")
    return [node for node in file.nodes if node.op_type not in spared and _computes_float(file, integers, node)]


def _left(file: File, locate: Locate, what: str, is_left: Callable[[Any], bool]) -> Iterator[str]:
    for node in file.nodes:
        if node.op_type not in (*QUANTIZERS, *MOVING, "Cast", "Constant") and is_left(node):
            yield f"{layer_of(file, node, locate)}: {node.op_type} {what}"


def _integers(file: File) -> set[str]:
    """Tensors that hold shapes and indexes, not images: what comes of Shape, or of a Cast to an integer type."""
    import onnx

    found: set[str] = set()
    for node in file.nodes:
        if node.op_type == "Cast":
            whole = node.attribute[0].i in (onnx.TensorProto.INT32, onnx.TensorProto.INT64)
        else:
            whole = node.op_type == "Shape" or (node.input and node.input[0] in found)
        found.update(node.output if whole else ())
    return found


def _computes_float(file: File, integers: set[str], node: Any) -> bool:
    """Whether it reads from anything but DequantizeLinear, or is read by anything but QuantizeLinear."""
    computed = [name for name in node.input if name and name not in file.constants and name not in integers]
    sources = [file.producers.get(name) for name in computed]
    readers = [file.consumers.get(name, [None]) for name in node.output if name not in integers]
    inside = all(source is not None and source.op_type == "DequantizeLinear" for source in sources) and all(
        reader is not None and reader.op_type == "QuantizeLinear" for group in readers for reader in group
    )
    return bool(readers) and not inside


def _reads_wide(file: File, node: Any) -> bool:
    """Whether its data comes from a Cast back to float32."""
    import onnx

    source = file.producers.get(node.input[0]) if node.input else None
    return source is not None and source.op_type == "Cast" and source.attribute[0].i == onnx.TensorProto.FLOAT
