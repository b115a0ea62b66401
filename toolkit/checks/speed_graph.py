"""A delivered file as what decides on speed: which operators compute in what, who reads whom, how much work each is.

Both formats give the same `Graph`, so that a rule is written once.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from toolkit.core import Scheme
from toolkit.errors import UnsupportedError
from toolkit.estimates import workload
from toolkit.estimates.workload import Layer
from toolkit.exporters import onnx_file, onnx_scan, tflite_file, tflite_scan
from toolkit.exporters.tflite_operators import EDGES, WEIGHTED

if TYPE_CHECKING:
    from toolkit.core import Array

Computes = Literal["float", "integer", "moves", "edge"]
INTEGERS = ("int8", "uint8", "int16", "int4")
MOVES = frozenset({"RESHAPE", "SQUEEZE", "EXPAND_DIMS", "SHAPE", "TRANSPOSE", "DENSIFY"})
# what ONNX Runtime has integer kernels for, and makes of an operator between Q/DQ
# (core/optimizer/qdq_transformer/selectors_actions/qdq_selector_action_transformer.cc); it drops ReLU and Clip
FUSED = frozenset(
    {
        *("Conv", "MatMul", "Gemm", "Add", "Mul", "AveragePool", "GlobalAveragePool", "Concat", "LeakyRelu"),
        *("Sigmoid", "Softmax", "ArgMax", "Where", "MaxPool", "Resize", "Relu", "Clip", "Split", "Pad"),
    }
)
OPERATIONS = ("/convolution", "/depthwise", "/MatMul", "/Conv2D", "/conv2d")  # as Keras 3 and TensorFlow call them
ACTIVATIONS = ("Relu", "Clip")  # ONNX Runtime drops them before a QuantizeLinear that cannot hold what they cut off


@dataclass(frozen=True)
class Node:
    """One operator. place: in its file. name: for people. tensor: the first that it makes. label: its own name, if any.

    computes: "moves" for what only moves values, "edge" for what turns one type into another. reads, read_by: places
    of other nodes. first, last: it reads an input of the file, makes an output. channels: of a weighted one's output.
    requantizes: an edge between two integer types.
    """

    place: int
    name: str
    operator: str
    computes: Computes
    tensor: str = ""
    label: str = ""
    reads: tuple[int, ...] = ()
    read_by: tuple[int, ...] = ()
    first: bool = False
    last: bool = False
    channels: int = 0
    depthwise: bool = False
    requantizes: bool = False


@dataclass(frozen=True)
class Graph:
    """A file's operators in order, without constants and what unpacks them; work: of those that compute, by place.

    runs_as: place of an operator in the file as it stands -> place here, where these differ (unpacking operators).
    """

    format: str
    scheme: Scheme
    nodes: tuple[Node, ...]
    work: Mapping[int, Layer] = field(default_factory=dict)
    runs_as: Mapping[int, int] | None = None

    @cached_property
    def by_place(self) -> dict[int, Node]:
        """The nodes by their places."""
        return {node.place: node for node in self.nodes}

    @cached_property
    def macs(self) -> int:
        """Of all of it."""
        return sum(layer.macs for layer in self.work.values())

    def here(self, operator: int) -> Node | None:
        """The node of an operator, by its place in the file as a runtime counts."""
        place = operator if self.runs_as is None else self.runs_as.get(operator, -1)
        return self.by_place.get(place)


def read_graph(path: Path) -> Graph:
    """The graph of a .tflite or .onnx file; InputError for anything else."""
    workload.checked(path)
    return workload.readable(path, _onnx if path.suffix.lower() == ".onnx" else _tflite)


# ---------------------------------------------------------------- TFLite


def _tflite(path: Path) -> Graph:
    content = path.read_bytes()
    file = tflite_file.load(content)
    makers = {id(tensor): place for place, op in enumerate(file.operators) for tensor in op.outputs}
    weights = {id(op): (tensor, axis) for op, tensor, axis in tflite_scan.weights(file)}
    inputs, outputs = ({id(tensor) for _, tensor in end} for end in (file.inputs, file.outputs))
    nodes = []
    for place, op in enumerate(file.operators):
        if op.kind in EDGES and op.inputs[0] is not None and op.inputs[0].data is not None:
            continue  # of a constant: done once, when the file is loaded
        weight, axis = weights.get(id(op), (None, 0))
        given = [tensor for tensor in op.inputs if tensor is not None]
        nodes.append(
            Node(
                place,
                _short(op.outputs[0].name) if op.outputs else op.kind,
                op.kind,
                _computes(op),
                tensor=op.outputs[0].name if op.outputs else "",
                reads=tuple(makers[id(tensor)] for tensor in given if id(tensor) in makers),
                first=any(id(tensor) in inputs for tensor in given),
                last=any(id(tensor) in outputs for tensor in op.outputs),
                channels=weight.shape[axis] if weight is not None and op.kind in WEIGHTED else 0,
                depthwise=op.kind == "DEPTHWISE_CONV_2D",
                requantizes=op.kind == "QUANTIZE" and given[0].dtype in INTEGERS,
            )
        )
    work = {}
    with suppress(UnsupportedError):  # sizes that are known only once the file runs
        work = dict(workload.placed(str(path), file))
    return Graph(
        "tflite", tflite_scan.scheme_of(file), _read(nodes), work, _packed(content) if file.unpacking else None
    )


def _computes(op: tflite_file.Operator) -> Computes:
    if op.kind in EDGES:
        return "edge"
    if op.kind in MOVES:
        return "moves"
    made = {tensor.dtype for tensor in op.outputs}
    return "integer" if made & set(INTEGERS) else "float" if made & set(tflite_scan.FLOATS) else "moves"


def _short(name: str) -> str:
    """Of the names that the converter joins of what it fused (`a/Relu;b/convolution`), the weighted operation's."""
    parts = [part for part in name.split(";") if part]
    return next((part for part in parts if part.endswith(OPERATIONS)), parts[0] if parts else name)


def _packed(content: bytes) -> dict[int, int]:
    """Places of operators without those that unpack sparse constants."""
    model = tflite_file.parse(content)
    kinds, graph = tflite_file.kinds(model), model.subgraphs[0]
    kept = [
        place
        for place, op in enumerate(graph.operators)
        if kinds[op.opcodeIndex] != "DENSIFY" or graph.tensors[op.inputs[0]].sparsity is None
    ]
    return {place: here for here, place in enumerate(kept)}


# ---------------------------------------------------------------- ONNX


def _onnx(path: Path) -> Graph:
    file = onnx_file.read(path)
    scheme = onnx_scan.scheme_of(file)
    floats = set(_not_absorbed(file)) if scheme == "int8" else None
    makers = {name: place for place, node in enumerate(file.nodes) for name in node.output}
    inputs, outputs = ({spec.name for spec in end} for end in (file.inputs, file.outputs))
    nodes = []
    for place, node in enumerate(file.nodes):
        if node.op_type == "Constant" or (node.op_type in onnx_scan.QUANTIZERS and _of_constant(file, node)):
            continue
        nodes.append(
            Node(
                place,
                node.name or node.output[0],
                node.op_type,
                _onnx_computes(node, floats),
                tensor=node.output[0],
                label=node.name,
                reads=tuple(makers[name] for name in node.input if name in makers),
                first=any(name in inputs for name in node.input),
                last=any(name in outputs for name in node.output),
                channels=_channels(file, node),
                depthwise=_groups(node) > 1,
            )
        )
    return Graph("onnx", scheme, _read(nodes), dict(_work(path, nodes)))


def _onnx_computes(node: Any, floats: set[str] | None) -> Computes:
    if node.op_type in (*onnx_scan.QUANTIZERS, "DynamicQuantizeLinear", "Cast"):
        return "edge"
    if node.op_type in (*onnx_scan.MOVING, "Shape") and node.op_type not in ("MaxPool", "Resize"):
        return "moves"
    fused = floats is not None and node.op_type in FUSED and node.output[0] not in floats
    return "integer" if fused or node.op_type in ("ConvInteger", "MatMulInteger") else "float"


def _not_absorbed(file: onnx_file.File) -> Iterator[str]:
    """What nodes make that ONNX Runtime does not compute on integers; an activation that the next QuantizeLinear does
    anyway is dropped.

    ONNX Runtime, core/optimizer/qdq_transformer (ReluQuantFusion, ClipQuantFusion).
    """
    kept = [node for node in file.nodes if node.op_type in ACTIVATIONS]
    dropped = {node.output[0] for node in kept if _dropped(file, node)}
    yield from (node.output[0] for node in kept if node.output[0] not in dropped)
    for node in onnx_scan.floats(file):
        readers = [reader.output[0] for name in node.output for reader in file.consumers.get(name, ())]
        into = bool(readers) and dropped.issuperset(readers) and _from_edges(file, node)
        if node.output[0] not in dropped and not into:
            yield node.output[0]


def _from_edges(file: onnx_file.File, node: Any) -> bool:
    makers = [file.producers.get(name) for name in node.input if name and name not in file.constants]
    return bool(makers) and all(maker is not None and maker.op_type == "DequantizeLinear" for maker in makers)


def _dropped(file: onnx_file.File, node: Any) -> bool:
    """Whether all values that an activation would cut off are cut off by the quantization behind it."""
    readers = file.consumers.get(node.output[0], ())
    if not readers or any(reader.op_type != "QuantizeLinear" for reader in readers):
        return False
    low, high = _bounds(file, node)
    for reader in readers:
        span = _span(file, reader)
        if span is None or span[0] < low - 1e-6 or span[1] > high + 1e-6 + 0.5 * span[2]:
            return False
    return True


def _bounds(file: onnx_file.File, node: Any) -> tuple[float, float]:
    if node.op_type == "Relu":
        return 0.0, float("inf")
    ends = [float("-inf"), float("inf")]
    for attribute in node.attribute:  # up to operator set 10
        ends[attribute.name == "max"] = attribute.f
    for place, name in enumerate(node.input[1:3]):
        values = file.values(name) if name else None
        ends[place] = float(values) if values is not None else ends[place]
    return ends[0], ends[1]


def _span(file: onnx_file.File, node: Any) -> tuple[float, float, float] | None:
    """Least and largest number that a QuantizeLinear can hold, and its scale."""
    import numpy as np

    scale = file.values(node.input[1])
    zero = file.values(node.input[2]) if len(node.input) > 2 else np.uint8(0)
    if scale is None or zero is None or scale.size != 1 or zero.dtype not in (np.int8, np.uint8, np.int16, np.uint16):
        return None
    limits, step, middle = np.iinfo(zero.dtype), float(scale.reshape(())), int(np.reshape(zero, ()))
    return (limits.min - middle) * step, (limits.max - middle) * step, step


def _of_constant(file: onnx_file.File, node: Any) -> bool:
    """Whether it turns stored weights into another type."""
    source = file.producers.get(node.input[0])
    stored = source is not None and source.op_type == "QuantizeLinear" and source.input[0] in file.constants
    return node.input[0] in file.constants or stored


def _channels(file: onnx_file.File, node: Any) -> int:
    if node.op_type not in onnx_scan.WEIGHTED:
        return 0
    stored: Any = file.producers.get(node.input[1])
    name = node.input[1]
    while stored is not None and stored.op_type in onnx_scan.QUANTIZERS:
        name, stored = stored.input[0], file.producers.get(stored.input[0])
    values: Array | None = file.values(name)
    if values is None:
        return 0
    per_group = values.shape[onnx_scan.weight_axis(node)]
    return int(per_group * _groups(node) if node.op_type == "ConvTranspose" else per_group)


def _groups(node: Any) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)


def _work(path: Path, nodes: Iterable[Node]) -> Iterator[tuple[int, Layer]]:
    """What each node has to do; nothing where sizes are known only once the file runs."""
    from toolkit.estimates.onnx_workload import read_onnx

    places = {node.tensor: node.place for node in nodes}
    with suppress(UnsupportedError):
        for layer in read_onnx(path, any_scheme=True):
            if layer.name in places:
                yield places[layer.name], layer


# ---------------------------------------------------------------- both


def _read(nodes: Iterable[Node]) -> tuple[Node, ...]:
    """With who reads each."""
    known = list(nodes)
    kept = {node.place for node in known}
    readers: dict[int, list[int]] = defaultdict(list)
    for node in known:
        for place in node.reads:
            readers[place].append(node.place)
    return tuple(
        replace(node, read_by=tuple(readers[node.place]), reads=tuple(kept.intersection(node.reads))) for node in known
    )
