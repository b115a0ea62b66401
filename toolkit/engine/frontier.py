"""What layers read on the calibration images, one layer after the other, with the graph run about once in all.

Of each batch the tensors are kept that later layers are computed from, as long as they fit in memory, and the next
layer's input follows from these. Where they do not fit (early layers, large images), the stretch from where they last
did is run again. A layer's weights may be changed once its inputs have been read: what follows sees the new ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from toolkit.engine.channel_values import Batches, in_order
from toolkit.engine.graph import Call, Edge, walk

KEPT_BYTES = 256 << 20  # of all images' tensors: two such sets, an old and a new one, exist at a time


class Frontier:
    """A flat functional model's way through the images. names: of layers called once, in an order that they run in."""

    def __init__(self, model: Any, names: Sequence[str], batches: Batches, *, kept_bytes: int = KEPT_BYTES) -> None:
        self._model, self._graph, self._batches, self._most = model, walk(model), batches, kept_bytes
        self._calls = {call.name: call for call in self._graph.calls}
        self._left = list(names)
        self._done = {edge.call for edge in self._graph.inputs}
        self._edges = list(self._graph.inputs)  # what is kept, of each batch
        self._kept: list[list[Any]] | None = None  # None: the images themselves, read anew

    def inputs(self, name: str) -> Iterator[Any]:
        """The tensor that a layer reads, batch by batch, to be read to the end; names come in their order."""
        self._left = self._left[self._left.index(name) :]
        (wanted,) = self._calls[name].inputs
        path = self._path(wanted)
        done = self._done | set(path)
        edges = self._needed(done)
        run = self._stretch(path, edges)
        kept: list[list[Any]] = []
        size = 0
        for given in self._given():
            values = run(*given)
            yield values[edges.index(wanted)]
            size += sum(value.dtype.size * int(tf.size(value)) for value in values)
            if size <= self._most:
                kept.append(values)
            else:
                kept.clear()
        if size <= self._most:
            self._kept, self._edges, self._done = kept, edges, done

    def _given(self) -> Iterator[list[Any]]:
        if self._kept is not None:
            yield from self._kept
            return
        for batch in self._batches():
            yield in_order(self._model, batch)

    def _path(self, wanted: Edge) -> list[int]:
        """Calls that lead from what is kept to a tensor, in order."""
        return sorted(self._ahead({wanted.call}, self._done))

    def _needed(self, done: set[int]) -> list[Edge]:
        """Tensors that these calls gave and others, on the way to layers that are left, read."""
        ahead = self._ahead({self._calls[name].index for name in self._left}, done)
        read = {edge for index in ahead for edge in self._graph.calls[index].inputs if edge.call in done}
        return sorted(read, key=lambda edge: (edge.call, edge.output))

    def _ahead(self, ends: set[int], done: set[int]) -> set[int]:
        """These calls and what leads to them, without what was done."""
        found, waiting = set[int](), list(ends)
        while waiting:
            index = waiting.pop()
            if index not in found and index not in done:
                found.add(index)
                waiting += [edge.call for edge in self._graph.calls[index].inputs]
        return found

    def _stretch(self, path: Sequence[int], edges: Sequence[Edge]) -> Any:
        """What is kept to the values of `edges`, traced for batches of any size."""
        kept, calls = list(self._edges), self._graph.calls

        def run(*given: Any) -> list[Any]:
            values = dict(zip(kept, given, strict=True))
            for index in path:
                outputs = _outputs(calls[index], [values[edge] for edge in calls[index].inputs])
                values |= {Edge(index, i): output for i, output in enumerate(outputs)}
            return [values[edge] for edge in edges]

        if not path:
            return run
        return tf.function(run, autograph=False, input_signature=[self._spec(edge) for edge in kept])

    def _spec(self, edge: Edge) -> Any:
        tensor = self._graph.calls[edge.call].node.outputs[edge.output]
        return tf.TensorSpec(tensor.shape, "float32" if edge in self._graph.inputs else tensor.dtype)


def _outputs(call: Call, inputs: list[Any]) -> list[Any]:
    tensors = call.node.input_tensors
    args, kwargs = call.node.arguments.fill_in({id(t): x for t, x in zip(tensors, inputs, strict=True)})
    kwargs.pop("training", None)
    return list(keras.tree.flatten(call.layer(*args, **kwargs)))
