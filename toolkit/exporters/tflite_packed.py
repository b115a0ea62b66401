"""A .tflite file with its sparse weights packed: DENSIFY operators at the front give the weights as they were.

LiteRT unpacks once, when the file is loaded: XNNPACK as it takes the graph over, its other kernels at the first run. So
the file shrinks, the memory it needs at run time does not. Page: tensorflow.org/model_optimization, "Pruning for
on-device inference".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from toolkit.core import QuantSpec
from toolkit.errors import UnsupportedError
from toolkit.exporters import tflite_file
from toolkit.exporters.tflite_sparsity import Packed, packed, parameters

OPERATOR = "DENSIFY"
VALID = 1  # schema.fbs, Padding
# operators whose weights are packed, and which of their inputs these are
WEIGHTS = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1, "DEQUANTIZE": 0}
TYPES = ("FLOAT32", "FLOAT16", "INT8")  # that DENSIFY knows (LiteRT, kernels/densify.cc)
REFUSED: Mapping[str, str] = {
    "dynamic": "LiteRT's XNNPACK does not load such files; use int8 or weight_int8",
    "weight_int4": "LiteRT's DENSIFY has no 4-bit form; use weight_int8",
}


@dataclass(frozen=True)
class Weight:
    """What packing did to one weight: bytes of its values before, of all that is stored of it after (0: left dense)."""

    name: str
    zeros: float
    before: int
    after: int


def refusal(quant: QuantSpec) -> str | None:
    """Why no file of such a request can be packed, or None."""
    for scheme, why in REFUSED.items():
        if scheme in quant.schemes:
            return f"pack_sparse cannot be had with scheme {scheme}: {why}"
    return None


def told(weights: Sequence[Weight]) -> str:
    """What was packed, as a note."""
    packed = [weight for weight in weights if weight.after]
    before, after = sum(weight.before for weight in packed), sum(weight.after for weight in packed)
    return (
        f"{len(packed)} of {len(weights)} weights are packed: {before:,} bytes as {after:,}; "
        "the runtime unpacks them when it loads the file"
    )


def pack(content: bytes) -> tuple[bytes, tuple[Weight, ...]]:
    """The same model with every weight packed that gets smaller by it; what became of each weight.

    Raises UnsupportedError where the file would not get smaller, or be computed wrong.
    """
    model = tflite_file.parse(content)
    for graph in model.subgraphs:
        _require_right(graph, model)
    found = tuple(_packed(graph, index, model) for graph in model.subgraphs for index in list(weights(graph, model)))
    made = tflite_file.pack(model)
    if len(made) < len(content) and any(weight.after for weight in found):
        return made, found
    zeros = sum(weight.zeros * weight.before for weight in found) / max(1, sum(weight.before for weight in found))
    problem = f"no file gets smaller by it: {zeros:.1%} of what can be packed is zero"
    fix = "sparsify the model before (int8 gains from about 60% on, float from 30%), or leave pack_sparse out"
    raise UnsupportedError("tflite.pack_sparse", problem, fix)


def _require_right(graph: Any, model: Any) -> None:
    """Raise for a network that LiteRT 2.3's XNNPACK computes wrong on Arm once its weights are packed.

    Packed float weights are its sign to look for sparse inference, which begins with a 3x3 convolution of 3 channels,
    stride 2 and explicit padding. A depthwise convolution of stride 2 behind it whose padding is SAME, and so not the
    same on each side, then comes out wrong (by 65% of the largest output, on an emulated Cortex-A72).
    """
    kinds, types = tflite_file.kinds(model), tflite_file.types()
    starts, names = False, []
    for operator in graph.operators or []:
        kind, how = kinds[operator.opcodeIndex], operator.builtinOptions
        if kind not in ("CONV_2D", "DEPTHWISE_CONV_2D") or types[graph.tensors[operator.inputs[0]].type] == "INT8":
            continue
        shape, strided = [int(size) for size in graph.tensors[operator.inputs[1]].shape], how.strideH > 1
        starts |= kind == "CONV_2D" and shape[1:] == [3, 3, 3] and strided and how.padding == VALID
        if kind == "DEPTHWISE_CONV_2D" and strided and how.padding != VALID:
            names.append(tflite_file.text(graph.tensors[operator.outputs[0]].name))
    if starts and names:
        problem = f"LiteRT's XNNPACK would compute it wrong on Arm: {names[0]!r} is depthwise, stride 2, padding SAME"
        fix = "leave pack_sparse out, or pad before that layer (ZeroPadding2D(1), padding valid)"
        raise UnsupportedError("tflite.pack_sparse", problem, fix)


def unpack(content: bytes) -> bytes:
    """The same model with its packed constants dense and no DENSIFY operator: what every check of a file can read."""
    model = tflite_file.parse(content)
    if OPERATOR not in tflite_file.kinds(model):
        return content
    for graph in model.subgraphs:
        _unpacked(graph, model)
    _forget(model)
    return tflite_file.pack(model)


def _forget(model: Any) -> None:
    """Take DENSIFY from the file's operator codes, where no operator has it any more."""
    code = tflite_file.kinds(model).index(OPERATOR)
    operators = [operator for graph in model.subgraphs for operator in graph.operators]
    if any(operator.opcodeIndex == code for operator in operators):
        return
    del model.operatorCodes[code]
    for operator in operators:
        operator.opcodeIndex -= operator.opcodeIndex > code


def _unpacked(graph: Any, model: Any) -> None:
    import numpy as np

    code = tflite_file.kinds(model).index(OPERATOR)
    behind: dict[int, int] = {}
    for operator in [each for each in graph.operators if each.opcodeIndex == code]:
        tensor = graph.tensors[int(operator.inputs[0])]
        array = tflite_file.constant(tensor, model)
        if array is None:
            continue  # LiteRT has no such file: it is left as it is
        model.buffers[tensor.buffer].data = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        tensor.sparsity, tensor.quantization = None, graph.tensors[int(operator.outputs[0])].quantization
        behind[int(operator.outputs[0])] = int(operator.inputs[0])
        graph.operators.remove(operator)
    for operator in graph.operators:
        operator.inputs = [behind.get(int(place), int(place)) for place in operator.inputs]
    while len(graph.tensors) - 1 in behind:  # nothing reads it any more; where `pack` puts them they are the last
        graph.tensors.pop()


def weights(graph: Any, model: Any) -> Iterator[int]:
    """Numbers of the constant tensors that could be packed, each once."""
    kinds = tflite_file.kinds(model)
    types = tflite_file.types()
    used = [int(tensor.buffer) for each in model.subgraphs for tensor in each.tensors]
    seen = set()
    for operator in graph.operators or []:
        place = WEIGHTS.get(kinds[operator.opcodeIndex])
        if place is None:
            continue
        index = int(operator.inputs[place])
        tensor = graph.tensors[index]
        data = model.buffers[tensor.buffer].data
        alone = used.count(int(tensor.buffer)) == 1 and tensor.sparsity is None
        kind = kinds[operator.opcodeIndex]
        read = types[graph.tensors[int(operator.inputs[2 if kind == "TRANSPOSE_CONV" else 0])].type]
        known = types[tensor.type] in TYPES and not _refused(kind, types[tensor.type], read)
        if index not in seen and alone and known and data is not None and len(data):
            seen.add(index)
            yield index


def _refused(kind: str, stored: str, read: str) -> bool:
    """Whether XNNPACK (LiteRT 2.3) loads no file with such weights unpacked before it: "failed to delegate".

    Seen with int8 weights of dense layers, and of any operator that reads float32 (scheme dynamic).
    """
    return stored == "INT8" and kind != "DEQUANTIZE" and (kind == "FULLY_CONNECTED" or read == "FLOAT32")


def _packed(graph: Any, index: int, model: Any) -> Weight:
    import numpy as np

    tensor = graph.tensors[index]
    array = tflite_file.constant(tensor, model)
    if array is None:
        raise ValueError(f"tensor {index} holds no values")
    name, zeros, form = tflite_file.text(tensor.name), float(np.mean(array == 0)), packed(array)
    if form.size_bytes >= array.nbytes:
        return Weight(name, zeros, array.nbytes, 0)
    _densified(graph, index, model)
    _store(tensor, form, model)
    return Weight(name, zeros, array.nbytes, form.size_bytes)


def _store(tensor: Any, form: Packed, model: Any) -> None:
    import numpy as np

    tensor.sparsity = parameters(form, tflite_file.generated())
    model.buffers[tensor.buffer].data = np.frombuffer(np.ascontiguousarray(form.values).tobytes(), np.uint8)


def _densified(graph: Any, index: int, model: Any) -> None:
    """A DENSIFY of a constant before everything else, and its output in the constant's place."""
    schema = tflite_file.generated()
    source = graph.tensors[index]
    twin = schema.TensorT(shape=source.shape, type=source.type, buffer=0, quantization=source.quantization)
    twin.name, twin.hasRank = f"{tflite_file.text(source.name)}/dense".encode(), source.hasRank
    source.quantization = None  # the scales are written once, where they are read
    graph.tensors.append(twin)
    number = len(graph.tensors) - 1
    for operator in graph.operators:
        operator.inputs = [number if int(place) == index else int(place) for place in operator.inputs]
    made = schema.OperatorT(opcodeIndex=_code(model), inputs=[index], outputs=[number])
    made.builtinOptionsType, made.builtinOptions = schema.BuiltinOptions.DensifyOptions, schema.DensifyOptionsT()
    graph.operators.insert(0, made)


def _code(model: Any) -> int:
    """Number of the file's operator code for DENSIFY."""
    schema = tflite_file.generated()
    kinds = tflite_file.kinds(model)
    if OPERATOR not in kinds:
        model.operatorCodes.append(schema.OperatorCodeT(builtinCode=schema.BuiltinOperator.DENSIFY, version=1))
    return kinds.index(OPERATOR) if OPERATOR in kinds else len(kinds)
