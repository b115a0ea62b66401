"""The float layers of a prepared graph, run on the tensors of a quantized file: which layer's own error is how large.

A file's operators are followed in their order. What one computes is matched to a call of the graph by value: the float
calls that follow the tensors it reads are run on what the file itself has there, and the one it equals best is meant.
So each layer is judged on the inputs that the file gives it, and a faulty one does not blame all that come after it.
Fused layers have one tensor: that of the last.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from toolkit.engine.graph import Call, Edge, Graph, walk
from toolkit.engine.numeric import sqnr_db
from toolkit.engine.prepare import WEIGHTED

Array = NDArray[Any]
NEAR_DB = 20.0  # a tenth of the signal: what 8 bits rarely miss, and another tensor never has by chance
ALIKE_DB = 6.0  # half of it
STEPS = 255  # of 8 bits
AHEAD = 4  # operators that one layer may be written as (Rescaling: 2, a hard swish: 4), without weights
CHANNELS_LAST = (0, 2, 3, 1)  # NCHW -> NHWC

# operator of a file -> classes of the layers it computes; where a value tells nothing, this does
KINDS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("CONV_2D", "Conv"), ("Conv2D", "DepthwiseConv2D", "Dense")),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2D", "Conv2D"),
    **dict.fromkeys(("FULLY_CONNECTED", "Gemm", "MatMul", "BATCH_MATMUL"), ("Dense", "Conv2D")),
    **dict.fromkeys(("TRANSPOSE_CONV", "ConvTranspose"), ("Conv2DTranspose",)),
    **dict.fromkeys(("ADD", "Add"), ("Add",)),
    **dict.fromkeys(("SUB", "Sub"), ("Subtract",)),
    **dict.fromkeys(("MUL", "Mul"), ("Multiply",)),
    **dict.fromkeys(("CONCATENATION", "Concat"), ("Concatenate",)),
    **dict.fromkeys(("AVERAGE_POOL_2D", "AveragePool"), ("AveragePooling2D", "GlobalAveragePooling2D")),
    **dict.fromkeys(("MEAN", "ReduceMean", "GlobalAveragePool"), ("GlobalAveragePooling2D", "AveragePooling2D")),
    **dict.fromkeys(("MAX_POOL_2D", "MaxPool", "REDUCE_MAX"), ("MaxPooling2D", "GlobalMaxPooling2D")),
    **dict.fromkeys(("SOFTMAX", "Softmax"), ("Softmax", "Activation")),
    **dict.fromkeys(("LOGISTIC", "Sigmoid", "TANH", "Tanh", "HARD_SWISH", "Elu", "ELU"), ("Activation",)),
    **dict.fromkeys(("RELU", "RELU6", "Relu", "Clip"), ("ReLU", "Activation")),
    **dict.fromkeys(("LEAKY_RELU", "PRELU", "LeakyRelu", "PRelu"), ("LeakyReLU", "PReLU", "ReLU")),
}
HOLD_WEIGHTS = {kind for kind, names in KINDS.items() if {"Conv2D", "Dense", "Conv2DTranspose"} & set(names)}


@dataclass(frozen=True)
class Node:
    """One tensor that a file computes. inputs: keys of the tensors it is computed from, constants left out."""

    kind: str
    inputs: tuple[int, ...]
    output: int


@dataclass(frozen=True)
class Trace:
    """What a file computed for some images. values: dequantized, first dimension the images.

    inputs: tensors of the file's inputs, in the order of the graph's. limits: smallest and largest value that a
    tensor's integers round to it.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    values: Mapping[int, Array]
    limits: Mapping[int, tuple[float, float]]


@dataclass(frozen=True)
class Match:
    """A tensor of the file and the call it is. sources: what the call is computed from: edge -> tensor of the file.

    alias: the same values again (a change of scale), so `edge` is among the sources too. turned: channels come first.
    """

    tensor: int
    edge: Edge
    layer: str
    layers: tuple[str, ...]  # fused into it, the named one last
    kind: str  # of the operator
    sources: Mapping[Edge, int]
    alias: bool = False
    turned: bool = False


@dataclass
class Errors:
    """Sums over images, and what they say."""

    signal: float = 0.0
    noise: float = 0.0
    alone_signal: float = 0.0
    alone_noise: float = 0.0
    low: float = math.inf
    high: float = -math.inf
    clipped: int = 0
    count: int = 0
    alone_low: float = math.inf
    alone_high: float = -math.inf

    @property
    def saturated(self) -> float:
        """Share of values that the float layer, on the file's own inputs, has beyond the tensor's integers."""
        return self.clipped / self.count if self.count else 0.0

    @property
    def sqnr_db(self) -> float:
        """Of the tensor against the float model's."""
        return decibels(self.signal, self.noise)

    @property
    def alone_db(self) -> float:
        """Of the tensor against the float layer on the file's own inputs."""
        return decibels(self.alone_signal, self.alone_noise)

    def possible_db(self, scale: float = 0.0) -> float:
        """What 8 bits between the extremes of the float layer's values would have, or such steps: step**2 / 12."""
        step = scale or (self.alone_high - self.alone_low) / STEPS
        return decibels(self.alone_signal, self.count * step**2 / 12)


def decibels(signal: float, noise: float) -> float:
    """10 log10(signal / noise); inf without noise, -inf without signal."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf


class Replay:
    """A prepared graph beside one file's tensors; batches of images add up."""

    def __init__(self, model: Any) -> None:
        self.model, self.graph = model, walk(model)
        self.matches: tuple[Match, ...] = ()
        self.errors: dict[int, Errors] = {}  # by tensor

    def add(self, trace: Trace) -> None:
        """Count some images; the first ones also say which tensor is which layer."""
        if not self.matches:
            self.matches = match(self.graph, trace)
            self.errors = {found.tensor: Errors() for found in self.matches}
        whole = self._reference(trace)
        carried = _carried(self.graph, trace, self.matches)
        for found in self.matches:
            value = carried[found.tensor]
            alone = self._alone(found, carried)
            sums, reference = self.errors[found.tensor], whole[found.edge]
            sums.signal += _energy(reference)
            sums.noise += _energy(reference - value)
            sums.alone_signal += _energy(alone)
            sums.alone_noise += _energy(alone - value)
            low, high = trace.limits.get(found.tensor, (-math.inf, math.inf))
            sums.clipped += int(np.count_nonzero((alone < low) | (alone > high)))
            sums.count += value.size
            sums.alone_low = min(sums.alone_low, float(alone.min()))
            sums.alone_high = max(sums.alone_high, float(alone.max()))
            sums.low, sums.high = min(sums.low, float(value.min())), max(sums.high, float(value.max()))

    def _reference(self, trace: Trace) -> dict[Edge, Array]:
        given = {edge: trace.values[key] for edge, key in zip(self.graph.inputs, trace.inputs, strict=True)}
        given = {edge: _in_shape(value, _shape(self.graph, edge)) for edge, value in given.items()}
        return run(self.graph, given, range(len(self.graph.calls)))

    def _alone(self, found: Match, carried: Mapping[int, Array]) -> Array:
        given = {edge: carried[tensor] for edge, tensor in found.sources.items()}
        if found.alias:
            return given[found.edge]
        return run(self.graph, given, _needed(self.graph, found.edge, set(given)))[found.edge]


def run(graph: Graph, given: Mapping[Edge, Array], indexes: Sequence[int] | range) -> dict[Edge, Array]:
    """What the calls of these indexes give, in the graph's order, from `given`; that of `given` is left in."""
    values = dict(given)
    for index in indexes:
        call = graph.calls[index]
        if not call.inputs or any(Edge(index, i) in given for i in range(len(call.output_shapes))):
            continue
        values.update(_outputs(call, [values[edge] for edge in call.inputs]))
    return values


def _outputs(call: Call, inputs: list[Array]) -> dict[Edge, Array]:
    node = call.node
    given = {id(tensor): keras.ops.convert_to_tensor(a) for tensor, a in zip(node.input_tensors, inputs, strict=True)}
    args, kwargs = node.arguments.fill_in(given)
    kwargs.pop("training", None)
    outputs = keras.tree.flatten(call.layer(*args, **kwargs))
    return {Edge(call.index, i): np.asarray(output) for i, output in enumerate(outputs)}


# ---------------------------------------------------------------- matching


def match(graph: Graph, trace: Trace) -> tuple[Match, ...]:
    """Each tensor that is a layer's, in the file's order; tensors inside a layer are left out."""
    return tuple(_Matcher(graph, trace).walk())


class _Matcher:
    def __init__(self, graph: Graph, trace: Trace) -> None:
        self.graph, self.trace = graph, trace
        self.readers: dict[int, list[Node]] = {}
        for node in trace.nodes:
            for key in node.inputs:
                self.readers.setdefault(key, []).append(node)
        self.reach: dict[int, dict[Edge, int]] = {}  # tensor -> the matched tensors it is computed from, or is
        self.carried: dict[int, Array] = {}  # matched tensors in the shape of their edge
        for edge, key in zip(graph.inputs, trace.inputs, strict=True):
            self.reach[key] = {edge: key}
            self.carried[key] = _in_shape(trace.values[key], _shape(graph, edge))

    def walk(self) -> Iterator[Match]:
        for node in self.trace.nodes:
            sources = self._sources(node)
            if not sources:
                continue  # computed from constants alone
            found = self._match(node, sources)
            if found is None:
                self.reach[node.output] = sources
                continue
            self.reach[node.output] = {found.edge: node.output}
            value = self.trace.values[node.output]
            self.carried[node.output] = _carry(value, _shape(self.graph, found.edge), turned=found.turned)
            yield found

    def _sources(self, node: Node) -> dict[Edge, int]:
        return {edge: key for tensor in node.inputs for edge, key in self.reach.get(tensor, {}).items()}

    def _match(self, node: Node, sources: dict[Edge, int]) -> Match | None:
        options = self._options(sources)
        value = self.trace.values[node.output]
        scored = [(score, edge, turned) for edge, local in options.items() for score, turned in _scores(local, value)]
        best = max(scored, key=lambda item: item[0], default=None)
        if best is None:
            return None
        if best[0] < NEAR_DB and self._goes_on(node, options, AHEAD):
            return None
        if best[0] < ALIKE_DB:
            best = self._by_kind(node, options, sources, value)
            if best is None:
                return None
        _, edge, turned = best
        return self._made(node, edge, sources, turned=turned)

    def _made(self, node: Node, edge: Edge, sources: dict[Edge, int], *, turned: bool) -> Match:
        alias = edge in sources
        indexes = [edge.call] if alias else _needed(self.graph, edge, set(sources))
        names = tuple(self.graph.calls[index].name for index in indexes)
        used = {e: k for e, k in sources.items() if alias or any(e in self.graph.calls[i].inputs for i in indexes)}
        name = self.graph.calls[edge.call].name
        return Match(node.output, edge, name, names, node.kind, used, alias, turned)

    def _options(self, sources: dict[Edge, int]) -> dict[Edge, Array]:
        """What may be meant: the sources themselves, and what follows them by calls of which one may have weights."""
        values = {edge: self.carried[key] for edge, key in sources.items()}
        weights = dict.fromkeys(values, 0)
        for call in self.graph.calls:
            if not call.inputs or not all(edge in values for edge in call.inputs) or Edge(call.index) in values:
                continue
            count = max(weights[edge] for edge in call.inputs) + isinstance(call.layer, WEIGHTED)
            if count > 1:
                continue
            found = _outputs(call, [values[edge] for edge in call.inputs])
            values.update(found)
            weights.update(dict.fromkeys(found, count))
        return values

    def _goes_on(self, node: Node, options: dict[Edge, Array], steps: int) -> bool:
        """Whether an operator or a few later the file has what one of the options is: this one is inside a layer."""
        for reader in self.readers.get(node.output, ()) if steps else ():
            if reader.kind in HOLD_WEIGHTS:
                continue
            value = self.trace.values[reader.output]
            sizes = {edge: local for edge, local in options.items() if edge not in self.reach.get(node.output, {})}
            if any(score >= NEAR_DB for local in sizes.values() for score, _ in _scores(local, value)):
                return True
            if self._goes_on(reader, options, steps - 1):
                return True
        return False

    def _by_kind(
        self, node: Node, options: dict[Edge, Array], sources: dict[Edge, int], value: Array
    ) -> tuple[float, Edge, bool] | None:
        """Of the options that hold a layer of the operator's kind the most alike, whatever its scale."""
        kinds, found = KINDS.get(node.kind, ()), []
        for edge, local in options.items():
            if edge in sources:
                continue
            chain = _needed(self.graph, edge, set(sources))
            if any(self.graph.calls[index].kind in kinds for index in chain):
                found += [(alike, edge, turned) for alike, turned in _scores(local, value, correlation)]
        return max(found, key=lambda item: item[0], default=None)


def _scores(local: Array, value: Array, score: Any = None) -> Iterator[tuple[float, bool]]:
    """(how near `value` is to `local`, whether its channels come first), for each way of reading it."""
    measure = score or sqnr_db
    if value[0].size != local[0].size:
        return
    if value.shape == local.shape or value.ndim != 4 or local.ndim != 4:
        yield measure(local, value.reshape(local.shape)), False
    if value.ndim == 4 and local.ndim == 4:
        turned = value.transpose(CHANNELS_LAST)
        if turned.shape == local.shape:
            yield measure(local, turned), True


def correlation(one: Array, other: Array) -> float:
    """Cosine of two arrays; 0 where one is all zeros."""
    product = math.sqrt(_energy(one) * _energy(other))
    return float(np.sum(one * other, dtype=np.float64)) / product if product else 0.0


def _needed(graph: Graph, edge: Edge, given: set[Edge]) -> list[int]:
    """Calls that lead from `given` to `edge`, in order."""
    found: set[int] = set()
    todo = [edge]
    while todo:
        now = todo.pop()
        if now in given or now.call in found:
            continue
        found.add(now.call)
        todo += graph.calls[now.call].inputs
    return sorted(found)


def _carried(graph: Graph, trace: Trace, matches: Sequence[Match]) -> dict[int, Array]:
    """Matched tensors, and the inputs, in the shape of their edges."""
    pairs = zip(graph.inputs, trace.inputs, strict=True)
    found = {key: _in_shape(trace.values[key], _shape(graph, edge)) for edge, key in pairs}
    for each in matches:
        found[each.tensor] = _carry(trace.values[each.tensor], _shape(graph, each.edge), turned=each.turned)
    return found


def _carry(value: Array, shape: tuple[int | None, ...], *, turned: bool) -> Array:
    return value.transpose(CHANNELS_LAST) if turned else _in_shape(value, shape)


def _in_shape(value: Array, shape: tuple[int | None, ...]) -> Array:
    """A file's tensor as the graph has it: channels last, extents of one where the graph has them."""
    if value.ndim == 4 and len(shape) == 4:
        fits = all(b is None or a == b for a, b in zip(value.shape[1:], shape[1:], strict=True))
        turned = value.transpose(CHANNELS_LAST)
        if not fits and all(b is None or a == b for a, b in zip(turned.shape[1:], shape[1:], strict=True)):
            return turned
        return value
    known = tuple(length for length in shape[1:] if length is not None)
    return value.reshape(len(value), *known) if len(known) == len(shape) - 1 else value


def _shape(graph: Graph, edge: Edge) -> tuple[int | None, ...]:
    return graph.calls[edge.call].output_shapes[edge.output]


def _energy(values: Array) -> float:
    return float(np.sum(np.square(values, dtype=np.float64)))
