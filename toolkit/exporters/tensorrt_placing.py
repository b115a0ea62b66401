"""Which of the operators that TensorRT has in int8 are worth it, and why the others are not.

The rules are those by which NVIDIA's Model Optimizer (nvidia-modelopt 0.47) places Q/DQ, and the advice of TensorRT's
"Working with Quantized Types": weighted operators that fill the tensor cores' tiles; sums that a convolution ends in;
means whose result is needed in int8 anyway. A Concat has no pairs of its own: all it reads and gives has one scale
(`onnx_quantize.joined`), so that TensorRT moves the pair behind it to its inputs, where what is int8 already cancels;
and ONNX Runtime 1.31 makes an operator of float16 pairs around a Concat that it then cannot run.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from toolkit.exporters.onnx_file import File
from toolkit.exporters.onnx_scan import WEIGHTED

TILE = 16  # channels of an int8 tensor-core tile (Model Optimizer's least)
ALIGNED = 8  # channels that still make part of one
CONVOLUTIONS = ("Conv", "ConvTranspose")
MEANS = ("AveragePool", "GlobalAveragePool")  # unlike MaxPool they compute: int8 in wants int8 out
# What a QuantizeLinear moves over on its way back to what computes.
PASSED = ("Relu", "Clip", "MaxPool", "Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Identity",
          "Concat")  # fmt: skip


def chosen(file: File, candidates: Collection[str], named: Collection[str]) -> tuple[set[str], dict[str, str]]:
    """(nodes to quantize, node -> why it is not); named: nodes that are quantized whatever the rules say.

    candidates: weighted nodes, sums and means that may be.
    """
    spared: dict[str, str] = {}
    kept: set[str] = set()
    weighted = [node for node in file.nodes if node.name in candidates and node.op_type in WEIGHTED]
    for node in weighted:
        reason = "" if node.name in named else _reason(file, node)
        if reason:
            spared[node.name] = f"{node.op_type} is not computed in int8: {reason}"
        else:
            kept.add(node.name)
    for node in file.nodes:
        if node.name in candidates and node.op_type == "Add":
            if node.name in named or _ends_convolution(file, node, kept):
                kept.add(node.name)
            else:
                spared[node.name] = "Add is not computed in int8: there is no int8 convolution it could be fused into"
    between = [node for node in file.nodes if node.name in candidates and node.op_type in MEANS]
    return kept | {node.name for node in between if node.name in named or _is_between(file, node, kept)}, spared


def _reason(file: File, node: Any) -> str:
    if node.op_type in CONVOLUTIONS:
        return _of_convolution(file, node)
    return _of_product(file, node)


def _of_convolution(file: File, node: Any) -> str:
    """Fewer than 16 channels on a side are worth it in square kernels aligned to 8, or grouped ones of 3 or more."""
    if node.input[1] not in file.constants:
        return "its weights are computed"
    shape = tuple(file.constants[node.input[1]].dims)
    groups = next((each.i for each in node.attribute if each.name == "group"), 1)
    if node.op_type == "ConvTranspose":
        return ""
    (outputs, inputs), sides = shape[:2], shape[2:]
    if min(outputs, inputs) >= TILE:
        return ""
    if groups > 1:
        if outputs % ALIGNED == 0 and all(side >= 3 for side in sides):
            return ""
        wanted = f"wanted are a multiple of {ALIGNED} and 3 or more on each side"
        return f"in groups, {outputs} output channels and kernel {_by(sides)}; {wanted}"
    first = node.input[0] in {spec.name for spec in file.inputs}
    aligned = outputs % ALIGNED == 0 or inputs % ALIGNED == 0
    if aligned and (first or max(outputs, inputs) >= TILE) and len(set(sides)) == 1:
        return ""
    return f"{inputs} input and {outputs} output channels, kernel {_by(sides)}, do not fill a tile of {TILE}"


def _of_product(file: File, node: Any) -> str:
    """Rows and columns of 1 make it a matrix times a vector; inner sizes and columns under 16 do not fill a tile."""
    flags = {each.name: each.i for each in node.attribute}
    one, other = (file.inferred.get(name, (0, None))[1] for name in node.input[:2])
    if one is None or other is None or len(one) < 2 or len(other) < 2:
        return "its sizes are not known"
    rows = one[-1] if flags.get("transA") else one[-2]
    inner, columns = (other[-1], other[-2]) if flags.get("transB") else (other[-2], other[-1])
    if 1 in (rows, columns):
        return "a product of a matrix and a vector is bound by memory"
    if any(size is not None and size < TILE for size in (inner, columns)):
        return f"{inner} inputs and {columns} outputs do not fill a tile of {TILE}"
    return ""


def _ends_convolution(file: File, node: Any, kept: Collection[str]) -> bool:
    """Whether a quantized convolution computes an input of this sum for it alone, in the sum's own shape."""
    outputs = {spec.name for spec in file.outputs}
    shapes = [file.inferred.get(name, (0, None))[1] for name in node.input]
    if len(set(shapes)) > 1:
        return False
    for name in node.input:
        maker = file.producers.get(name)
        alone = len(file.consumers.get(name, [])) == 1 and name not in outputs
        if maker is not None and maker.op_type in CONVOLUTIONS and maker.name in kept and alone:
            return True
    return False


def _is_between(file: File, node: Any, kept: Collection[str]) -> bool:
    """A mean where everything is quantized that reads its input or its result."""
    beside = [reader for reader in file.consumers[node.input[0]] if reader.name != node.name]
    readers = file.consumers.get(node.output[0], [])
    return bool(readers) and all(_reads_integers(file, reader, kept) for reader in (*beside, *readers))


def _reads_integers(file: File, node: Any, kept: Collection[str]) -> bool:
    """Whether a node is quantized, or moves values to some that are alone."""
    if node.name in kept:
        return True
    readers = [reader for name in node.output for reader in file.consumers.get(name, [])]
    return node.op_type in PASSED and bool(readers) and all(_reads_integers(file, each, kept) for each in readers)


def _by(sides: tuple[int, ...]) -> str:
    return "x".join(map(str, sides))
