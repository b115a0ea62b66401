"""Which tensors of a prepared graph a quantized file stores, and which of them have one encoding between them.

Operators with a scale in common, and those with a fixed one, as in the LiteRT 8-bit quantization specification
(ai.google.dev/edge/litert). An activation behind an operator that takes it in is one tensor with it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from toolkit.engine.graph import Call, Edge, Graph, walk
from toolkit.errors import InputError

Range = tuple[float, float]

# Give on integers that they took in; nothing is rounded.
# fmt: off
PASSING = frozenset([
    "MaxPooling1D", "MaxPooling2D", "MaxPooling3D", "GlobalMaxPooling1D", "GlobalMaxPooling2D", "Flatten",
    "Reshape", "Permute", "Transpose", "ZeroPadding1D", "ZeroPadding2D", "Pad", "Cropping1D", "Cropping2D",
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "AlphaDropout",
    "ActivityRegularization", "Identity", "_Through", "GetItem", "Squeeze", "ExpandDims", "RepeatVector", "Repeat",
    "BroadcastTo", "Split", "Cast",
])
# fmt: on
AVERAGES = frozenset(["AveragePooling1D", "AveragePooling2D"])
# Compute new integers on the scale of those they took in.
SAME_SCALE = frozenset(
    ["AveragePooling1D", "AveragePooling2D", "UpSampling2D", "Resizing", "Resize", "Maximum", "Minimum"]
)
JOINING = frozenset(["Concatenate", "Stack"])  # take in all tensors on the scale of what they give
# Take in a ReLU behind them, if nothing else reads what they give.
FUSING = frozenset(["Conv2D", "DepthwiseConv2D", "Conv2DTranspose", "Dense", "Add", "Subtract", "Multiply", "Divide"])
# Outputs whose scale the kernels prescribe: from 0 to 255/256, and from -1 to 127/128.
FIXED: Mapping[str, Range] = {"softmax": (0.0, 255 / 256), "sigmoid": (0.0, 255 / 256), "tanh": (-1.0, 127 / 128)}


@dataclass(frozen=True, eq=False)
class Stored:
    """The tensors of a graph as a file has them.

    names: every output of every call, as Statistics names it. source: a tensor -> the one whose encoding it has, which
    is itself for most; those that no file stores are left out. fixed: tensors of a prescribed range. shared: a source
    that is joined to others -> the outputs of the joining operators, whose ranges all of them take.
    """

    graph: Graph
    names: Mapping[Edge, str]
    source: Mapping[Edge, Edge]
    fixed: Mapping[Edge, Range]
    shared: Mapping[Edge, tuple[Edge, ...]]

    def inner(self, edge: Edge) -> bool:
        """Whether the tensor exists only inside an operator that has taken in the activation behind it."""
        return edge not in self.source

    def rounds(self, edge: Edge) -> bool:
        """Whether new integers arise here."""
        return edge in self.source and self.graph.calls[edge.call].kind not in PASSING

    def ranges(self, found: Mapping[str, Range], *, fixed: bool = True) -> dict[Edge, Range]:
        """What each stored tensor has integers for; fixed: with the prescribed ranges.

        Raises InputError naming the tensors that nothing was found for.
        """
        missing = [self.names[edge] for edge in self.needed(fixed=fixed) if self.names[edge] not in found]
        if missing:
            raise InputError(", ".join(missing[:5]), "has no range", "calibrate the prepared form of this very graph")
        result = {}
        for edge, source in self.source.items():
            if fixed and source in self.fixed:
                result[edge] = self.fixed[source]
                continue
            own = [found[self.names[other]] for other in self.shared.get(source, (source,))]
            result[edge] = (min(low for low, _ in own), max(high for _, high in own))
        return result

    def owner(self, edge: Edge) -> Edge:
        """One tensor for all that have an encoding between them."""
        source = self.source[edge]
        return self.shared.get(source, (source,))[0]

    def activation(self, edge: Edge) -> str:
        """The name of the activation whose output the tensor has passed on, in lower case; "" for any other."""
        return activation(self.graph.calls[self.source[edge].call])

    def needed(self, *, fixed: bool = True) -> list[Edge]:
        """Tensors whose ranges decide the encodings of all others."""
        sources = [source for source in dict.fromkeys(self.source.values()) if not (fixed and source in self.fixed)]
        return list(dict.fromkeys(edge for source in sources for edge in self.shared.get(source, (source,))))


def stored(model: Any) -> Stored:
    """The stored tensors of a flat functional model in prepared form."""
    graph = walk(model)
    source: dict[Edge, Edge] = {}
    for call in graph.calls:
        follows = call.kind in PASSING | SAME_SCALE and call.inputs
        for index in range(len(call.output_shapes)):
            edge = Edge(call.index, index)
            if follows or (is_linear(call) and call.inputs):
                source[edge] = source.get(call.inputs[0], call.inputs[0])
            elif fused(graph, call) is None:
                source[edge] = edge
    fixed = {
        edge: FIXED[name]
        for edge, own in source.items()
        if edge == own and (name := activation(graph.calls[edge.call])) in FIXED
    }
    return Stored(graph, edge_names(graph), source, fixed, _shared(graph, source, fixed))


def edge_names(graph: Graph) -> dict[Edge, str]:
    """Each output of each call as Statistics names it: "layer", then "layer:1", "layer:2", ... of the same layer."""
    counts: dict[str, int] = {}
    names = {}
    for call in graph.calls:
        for index in range(len(call.output_shapes)):
            number = counts.get(call.name, 0)
            counts[call.name] = number + 1
            names[Edge(call.index, index)] = f"{call.name}:{number}" if number else call.name
    return names


def tensors_of(model: Any) -> dict[Edge, Any]:
    """Each tensor of the graph, by where `walk` has it."""
    depths = model._nodes_by_depth
    nodes = [node for depth in sorted(depths, reverse=True) for node in depths[depth]]
    return {Edge(i, j): tensor for i, node in enumerate(nodes) for j, tensor in enumerate(node.outputs)}


def edges_of(model: Any) -> dict[int, Edge]:
    """id of each tensor of the graph -> where `walk` has it."""
    return {id(tensor): edge for edge, tensor in tensors_of(model).items()}


def fused(graph: Graph, call: Call) -> Call | None:
    """The ReLU or ReLU6 that this operator takes in, or None."""
    outputs = {edge.call for edge in graph.outputs}
    if call.kind not in FUSING or len(call.consumers) != 1 or call.index in outputs:
        return None
    after = graph.calls[call.consumers[0]]
    return after if _is_relu(after) and len(after.inputs) == 1 else None


def chosen(tensors: Stored, names: Collection[str] | None) -> set[int]:
    """Indexes of the calls that are quantized where these layers are: with what is fused and what passes on to them."""
    calls = tensors.graph.calls
    found = {call.index for call in calls if names is None or call.name in names}
    for call in reversed(calls):
        after = fused(tensors.graph, call)
        if after is not None and found & {call.index, after.index}:
            found |= {call.index, after.index}
        if (call.kind in PASSING or is_linear(call)) and found & set(call.consumers):
            found.add(call.index)
    return found


def is_linear(call: Call) -> bool:
    """Whether it is an activation layer that does nothing."""
    return call.kind == "Activation" and activation(call) == "linear"


def activation(call: Call) -> str:
    """The name of the activation a layer or operation is, in lower case; "" for any other."""
    if call.kind == "Activation":
        return str(getattr(call.layer.activation, "__name__", ""))
    return call.kind.lower()


def _is_relu(call: Call) -> bool:
    if call.kind == "ReLU":
        layer = call.layer
        return not layer.negative_slope and not layer.threshold and layer.max_value in (None, 6)
    return activation(call) in ("relu", "relu6")


def _shared(graph: Graph, source: Mapping[Edge, Edge], fixed: Mapping[Edge, Range]) -> dict[Edge, tuple[Edge, ...]]:
    """Tensors that are joined, directly or by way of others: a source -> outputs of the operators that join it."""
    groups: list[tuple[set[Edge], list[Edge]]] = []
    for call in graph.calls:
        if call.kind not in JOINING:
            continue
        own = Edge(call.index)
        members = {own, *(source[edge] for edge in call.inputs if edge in source)} - set(fixed)
        joined = [group for group in groups if group[0] & members]
        outputs = [edge for _, others in joined for edge in others]
        groups = [group for group in groups if not group[0] & members]
        groups.append((members.union(*(group[0] for group in joined)), [*outputs, own]))
    return {edge: tuple(outputs) for members, outputs in groups for edge in members}
