"""Which operators of a float .tflite file compute a layer, so that a layer can have a scheme of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from toolkit.core import QuantSpec, Scheme
from toolkit.errors import InputError, UnsupportedError
from toolkit.exporters import matching
from toolkit.exporters.tflite_file import File

LONGEST_FUSION = 3  # layers that a converter makes one operator of: weights, sum, activation


def schemes_of(file: File, graph: Any, found: Mapping[str, tuple[str, ...]], quant: QuantSpec) -> tuple[Scheme, ...]:
    """The scheme asked of each operator, in order. graph: prepared; found: tensors of the file -> layers' outputs.

    Raises:
        InputError: a layer is not in the graph.
        UnsupportedError: no operator computes a layer by itself, or one computes two that are to differ.
    """
    schemes: list[Scheme] = [quant.scheme] * len(file.operators)
    owner: dict[int, str] = {}
    for layer, scheme in quant.layers:
        for name in _made_of(layer, graph):
            for index in _operators(file, graph, found, name):
                if index in owner and schemes[index] != scheme:
                    problem = f"is one operator with {owner[index]}, which is to be {schemes[index]}"
                    raise UnsupportedError(layer, problem, "ask for one scheme for both")
                schemes[index], owner[index] = scheme, layer
    return tuple(schemes)


def _made_of(layer: str, graph: Any) -> list[str]:
    """The layers of a prepared graph that a layer became."""
    names = [str(other.name) for other in graph.layers]
    made = [name for name in (f"{layer}_depthwise", layer) if name in names]
    if layer not in names:
        fix = "name a layer of the model; a BatchNormalization is in the weights before it"
        raise InputError("quantize.layers", f"no layer of the quantized form is called {layer!r}", fix)
    return made


def _operators(file: File, graph: Any, found: Mapping[str, tuple[str, ...]], layer: str) -> set[int]:
    """Indexes of the operators between what a layer reads and what it, or the activation fused to it, gives."""
    from toolkit.engine.graph import walk

    calls = walk(graph).calls
    names = list(matching.output_tensors(graph))
    outputs: dict[int, list[str]] = {}
    for call in calls:
        outputs[call.index] = [names.pop(0) for _ in call.output_shapes]
    indexes: set[int] = set()
    for call in (call for call in calls if call.name == layer):
        reads = {outputs[edge.call][edge.output] for edge in call.inputs}
        at = call
        for _ in range(LONGEST_FUSION):
            if own := _between(file, found, outputs[at.index], reads):
                indexes |= own
                break
            if len(at.consumers) != 1:
                break
            at = calls[at.consumers[0]]
    if not indexes:
        raise UnsupportedError(layer, "no operator of the .tflite file computes this layer by itself", "leave it out")
    return indexes


def _between(file: File, found: Mapping[str, tuple[str, ...]], gives: list[str], reads: set[str]) -> set[int]:
    """Operators back from the first tensor that holds what is given to tensors that hold any layer's output."""
    producers = {tensor.name: index for index, operator in enumerate(file.operators) for tensor in operator.outputs}
    start = next(
        (n for n in producers if set(found.get(n, ())) & set(gives) and not set(found.get(n, ())) & reads), None
    )
    if start is None:
        return set()
    indexes: set[int] = set()
    left = [start]
    while left:
        index = producers[left.pop()]
        if index in indexes:
            continue
        indexes.add(index)
        left += [t.name for t in file.operators[index].inputs if t and t.name in producers and t.name not in found]
    return indexes
