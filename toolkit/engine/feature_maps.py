"""The feature maps of a network on some images, call by call: those are kept that a later call reads.

Unlike frontier.Frontier the images are kept in memory from the start, no more of them than have room: two networks can
then go beside each other, and a layer's weights be changed before it runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from toolkit.engine.graph import Call, Edge, Graph
from toolkit.engine.linear import Linear
from toolkit.engine.samples import Samples
from toolkit.errors import InputError

Array = NDArray[Any]
_BYTES = 2**30  # of feature maps at a time
_LEAST_IMAGES = 8  # that are used even where they have no room
_ROWS = 25  # for each feature: a fit's variance is then 1/25 of the residual's
_LEAST_ROWS = 10_000


class FeatureMaps:
    """values: of each tensor that is still to be read, an array a batch."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.values: dict[Edge, list[Array]] = {}
        self._left = {call.index: len(call.consumers) for call in graph.calls}

    def run(self, call: Call) -> None:
        """The call's outputs; what nothing reads any more is let go."""
        if call.inputs:
            self.values.update(run(call, self.values))
        self.done(call)

    def done(self, call: Call) -> None:
        """The call's outputs are there."""
        sources = {edge.call for edge in call.inputs}
        for index in sources:
            self._left[index] -= 1
        for edge in [e for e in self.values if not self._left[e.call] and e.call in {*sources, call.index}]:
            del self.values[edge]


def read(samples: Samples, networks: Sequence[FeatureMaps]) -> int:
    """Give some images to networks with the same inputs; how many have room."""
    graph, images, most = networks[0].graph, 0, 0
    for sample in samples():
        inputs = dict(zip(graph.inputs, sample.inputs, strict=True))
        most = most or max(_BYTES // (len(networks) * _peak(graph, inputs)), _LEAST_IMAGES)
        count = min(len(sample.inputs[0]), most - images)
        for edge, part in inputs.items():
            cut = part[:count]
            for network in networks:
                network.values.setdefault(edge, []).append(cut)
        images += count
        if images >= most:
            break
    if images < 2:
        raise InputError("reconstruct", f"has {images} images to fit layers to", "give it some hundreds")
    return images


def run(call: Call, values: Mapping[Edge, Sequence[Array]]) -> dict[Edge, list[Array]]:
    """What a call gives, batch by batch."""
    found: dict[Edge, list[Array]] = {}
    for parts in zip(*(values[edge] for edge in call.inputs), strict=True):
        tensors = [keras.ops.convert_to_tensor(part) for part in parts]
        given = {id(t): part for t, part in zip(call.node.input_tensors, tensors, strict=True)}
        args, kwargs = call.node.arguments.fill_in(given)
        kwargs.pop("training", None)
        for number, output in enumerate(keras.tree.flatten(call.layer(*args, **kwargs))):
            found.setdefault(Edge(call.index, number), []).append(np.asarray(output))
    return found


def places_of(layer: Linear, inputs: Array, images: int, generator: np.random.Generator) -> Array:
    """Flat numbers of outputs to look at in each image of a batch: all, or a draw that gives rows enough."""
    there = layer.places(inputs)
    wanted = -(-max(_ROWS * layer.kernel.shape[1], _LEAST_ROWS) // images)
    return np.arange(there) if wanted >= there else np.sort(generator.choice(there, wanted, replace=False))


def _peak(graph: Graph, inputs: Mapping[Edge, Array]) -> int:
    """Most bytes of one image's feature maps that are needed at a time."""
    maps = FeatureMaps(graph)
    maps.values = {edge: [part[:1]] for edge, part in inputs.items()}
    most = 1
    for call in graph.calls:
        maps.run(call)
        most = max(most, sum(part.nbytes for (part,) in maps.values.values()))
    return most
