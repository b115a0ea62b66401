"""The float layers of a prepared graph, run on the tensors of a file: which layer's own error is how large.

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
from toolkit.engine.stored import activation

Array = NDArray[Any]
NEAR_DB = 20.0  # a tenth of the signal: what 8 bits rarely miss, and another tensor never has by chance
EXACT_DB = 50.0  # files of floats have this tensor or another: half precision kept 59 dB and more in every layer
ALIKE_DB = 6.0  # half of it
STEPS = 255  # of 8 bits
PERCENT = 0.01  # of a layer's range: some three steps of 8 bits, and far beyond what floats round
AHEAD = 4  # operators that one layer may be written as (Rescaling: 2, a hard swish: 4), without weights
CHANNELS_LAST = (0, 2, 3, 1)  # NCHW -> NHWC

FUSED = ("relu", "relu6", "tanh")  # activations that an operator of a .tflite file can end with, and layers have
ACTIVATIONS = ("ReLU", "Activation", "LeakyReLU", "PReLU", "ELU", "Softmax")

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
    **dict.fromkeys(("SOFTMAX", "Softmax", "LOGISTIC", "Sigmoid", "TANH", "Tanh", "HARD_SWISH", "Elu"), ACTIVATIONS),
    **dict.fromkeys(("ELU", "RELU", "RELU6", "Relu", "Clip", "LEAKY_RELU", "PRELU", "LeakyRelu", "PRelu"), ACTIVATIONS),
}
HOLD_WEIGHTS = {kind for kind, names in KINDS.items() if {"Conv2D", "Dense", "Conv2DTranspose"} & set(names)}


@dataclass(frozen=True)
class Node:
    """One tensor that a file computes. inputs: keys of the tensors it is computed from, constants left out.

    activated: the operator ends with an activation of its own.
    """

    kind: str
    inputs: tuple[int, ...]
    output: int
    activated: bool = False


@dataclass(frozen=True)
class Trace:
    """What a file computed for some images. values: dequantized, first dimension the images.

    inputs, outputs: tensors of the file's, in the order of the graph's. limits: smallest and largest value that a
    tensor's integers round to it.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[int, ...]
    values: Mapping[int, Array]
    limits: Mapping[int, tuple[float, float]]
    outputs: tuple[int, ...] = ()


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
    largest: float = 0.0  # difference of a value from that of the float layer on the file's own inputs
    apart: int = 0  # values that differ so by more than PERCENT of the float layer's extremes
    fed: float = 0.0  # largest value among those inputs

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

    def beside(self, alone: Array, value: Array) -> None:
        """Count where `value` leaves what the float layer gives; what is no number does so everywhere."""
        gap = np.nan_to_num(np.abs(alone - value), nan=math.inf)
        self.largest = max(self.largest, float(gap.max()))
        self.apart += int(np.count_nonzero(gap > PERCENT * (float(alone.max()) - float(alone.min()))))

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
        self.errors: dict[tuple[int, Edge], Errors] = {}  # by tensor, and the edge it is held against
        self.carried: dict[int, Array] = {}  # matched tensors of the last images, in the shape of their edges

    def add(self, trace: Trace) -> None:
        """Count some images; the first ones also say which tensor is which layer."""
        if not self.matches:
            matched = match(self.graph, trace)
            self.matches = (*matched, *_unfinished(self.graph, trace, matched))
            self.errors = {(each.tensor, each.edge): Errors() for each in self.matches}
        whole = self._reference(trace)
        self.carried = carried = _carried(self.graph, trace, self.matches)
        for found in self.matches:
            alone, reference = self.alone(found, carried), whole[found.edge]
            value = carried[found.tensor].reshape(alone.shape)
            sums = self.errors[found.tensor, found.edge]
            sums.signal += _energy(reference)
            sums.noise += _energy(reference - value)
            sums.alone_signal += _energy(alone)
            sums.alone_noise += _energy(alone - value)
            low, high = trace.limits.get(found.tensor, (-math.inf, math.inf))
            sums.clipped += int(np.count_nonzero((alone < low) | (alone > high)))
            sums.count += value.size
            sums.beside(alone, value)
            sums.fed = max(sums.fed, *(float(np.abs(carried[key]).max()) for key in found.sources.values()))
            ends = _ends(alone), _ends(value)
            sums.alone_low, sums.alone_high = min(sums.alone_low, ends[0][0]), max(sums.alone_high, ends[0][1])
            sums.low, sums.high = min(sums.low, ends[1][0]), max(sums.high, ends[1][1])

    def _reference(self, trace: Trace) -> dict[Edge, Array]:
        given = {edge: trace.values[key] for edge, key in zip(self.graph.inputs, trace.inputs, strict=True)}
        given = {edge: _in_shape(value, _shape(self.graph, edge)) for edge, value in given.items()}
        return run(self.graph, given, range(len(self.graph.calls)))

    def alone(self, found: Match, carried: Mapping[int, Array]) -> Array:
        """What the float layer gives on the file's own inputs of it."""
        given = {edge: carried[tensor] for edge, tensor in found.sources.items()}
        if found.alias:
            return given[found.edge]
        return run(self.graph, given, needed(self.graph, found.edge, set(given)))[found.edge]


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
        self.same_db = NEAR_DB if trace.limits else EXACT_DB
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
        if best[0] < NEAR_DB:
            best = self._by_kind(node, options, sources, value) or (best if best[0] >= ALIKE_DB else None)
            if best is None:
                return None
        _, edge, turned = best
        return self._made(node, edge, sources, turned=turned)

    def _made(self, node: Node, edge: Edge, sources: dict[Edge, int], *, turned: bool) -> Match:
        alias = edge in sources
        indexes = [edge.call] if alias else needed(self.graph, edge, set(sources))
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
            if any(score >= self.same_db for local in sizes.values() for score, _ in _scores(local, value)):
                return True
            if self._goes_on(reader, options, steps - 1):
                return True
        return False

    def _by_kind(
        self, node: Node, options: dict[Edge, Array], sources: dict[Edge, int], value: Array
    ) -> tuple[float, Edge, bool] | None:
        """Of the options that end as the operator does (a layer of its kind, an activation behind it where it has one)
        the most alike, whatever its scale."""
        kinds, found = KINDS.get(node.kind, ()), []
        for edge, local in options.items():
            if edge in sources or self._taken(node, local):
                continue
            chain = [self.graph.calls[index] for index in needed(self.graph, edge, set(sources))]
            if not any(call.kind in kinds for call in chain):
                continue
            ends = _ends_so(node, chain[-1], kinds)
            found += [((ends, alike), edge, turned) for alike, turned in _scores(local, value, correlation)]
        best = max(found, key=lambda item: item[0], default=None)
        return best and (best[0][1], best[1], best[2])

    def _taken(self, node: Node, local: Array) -> bool:
        """Whether another tensor of the file is this one: of two branches a sound one is not taken for a broken one."""
        others = (self.trace.values[each.output] for each in self.trace.nodes if each.output != node.output)
        return any(score >= NEAR_DB for value in others for score, _ in _scores(local, value))


def _ends_so(node: Node, last: Call, kinds: Sequence[str]) -> int:
    """How well an operator with weights can end in this call: just there, at its own layer, anywhere."""
    if node.kind not in HOLD_WEIGHTS:
        return 0
    if activation(last) in FUSED:
        return 2 * node.activated
    return (2 - node.activated) * (last.kind in kinds)


def _scores(local: Array, value: Array, score: Any = None) -> Iterator[tuple[float, bool]]:
    """(how near `value` is to `local`, whether its channels come first), for each way of reading it."""
    measure = score or sqnr_db
    if value[0].size != local[0].size:
        return
    if value.shape == local.shape or value.ndim != 4 or local.ndim != 4:
        yield _number(measure(local, value.reshape(local.shape))), False
    if value.ndim == 4 and local.ndim == 4:
        turned = value.transpose(CHANNELS_LAST)
        if turned.shape == local.shape:
            yield _number(measure(local, turned)), True


def _number(value: float) -> float:
    """What can be ordered: the likeness of what is no number is the least."""
    return -math.inf if math.isnan(value) else value


def correlation(one: Array, other: Array) -> float:
    """Cosine of two arrays; 0 where one is all zeros."""
    product = math.sqrt(_energy(one) * _energy(other))
    return float(np.sum(one * other, dtype=np.float64)) / product if product else 0.0


def _unfinished(graph: Graph, trace: Trace, matches: Sequence[Match]) -> Iterator[Match]:
    """The file's output held against the graph's, where it was taken for something before it: layers are missing."""
    if len(trace.outputs) != 1 or len(graph.outputs) != 1 or any(each.edge == graph.outputs[0] for each in matches):
        return
    ((key,), (edge,)) = trace.outputs, graph.outputs
    carried = _carried(graph, trace, matches)
    known = dict(zip(graph.inputs, trace.inputs, strict=True)) | {each.edge: each.tensor for each in matches}
    chain = needed(graph, edge, set(known))
    used = {source: tensor for source, tensor in known.items() if any(source in graph.calls[i].inputs for i in chain)}
    given = run(graph, {source: carried[tensor] for source, tensor in used.items()}, chain)[edge]
    value = trace.values[key]
    if value.size != given.size or _number(sqnr_db(given, value.reshape(given.shape))) >= NEAR_DB:
        return
    names = tuple(graph.calls[index].name for index in chain)
    yield Match(key, edge, graph.calls[edge.call].name, names, "output", used)


def needed(graph: Graph, edge: Edge, given: set[Edge]) -> list[int]:
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
        found.setdefault(each.tensor, _carry(trace.values[each.tensor], _shape(graph, each.edge), turned=each.turned))
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


def _ends(values: Array) -> tuple[float, float]:
    """Smallest and largest, of those that are numbers."""
    return float(np.fmin.reduce(values, axis=None)), float(np.fmax.reduce(values, axis=None))


def _energy(values: Array) -> float:
    return float(np.sum(np.square(values, dtype=np.float64)))
