"""Blocks a network can do without: what goes in has the shape of what comes out, so that the next reads it instead.

Two kinds, found from the graph: a residual block adds to its input (He et al. 2016, arXiv:1512.03385); a repeat is
layers that have just been there with the same settings, one convolution as in VGG or several as in MobileNet. Which of
them a shallower student keeps: every n-th, with their weights, as DistilBERT does (Sanh et al. 2019, arXiv:1910.01108).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import keras

from toolkit.engine.flatten import Builder
from toolkit.engine.graph import Call, Graph, Shape, walk
from toolkit.engine.heads import activation_name
from toolkit.engine.prefix import waists
from toolkit.engine.surgery import input_like

MOST_PERIOD = 12  # units that repeat together: a MobileNetV3 block without a shortcut has about six
ACTIVATIONS = ("ReLU", "ReLU6", "Relu", "Relu6", "Activation", "LeakyReLU", "PReLU", "ELU", "Silu")
NORMS = ("BatchNormalization", "FusedBatchNormalization", "LayerNormalization", "GroupNormalization")
FOLLOWING = (*ACTIVATIONS, *NORMS, "Dropout", "SpatialDropout2D", "Identity")  # belong to the layer before
_OWN = ("name", "trainable", "dtype", "seed", "build_config")  # settings in which equal layers may differ


@dataclass(frozen=True)
class Block:
    """Calls that can go. start, end: indexes of the call whose output it reads, and of the one that gives its result.

    layers: names, in order. shape: of both ends. residual: it adds to its input; else it repeats what stands before.
    """

    start: int
    end: int
    layers: tuple[str, ...]
    shape: Shape
    residual: bool


@dataclass(frozen=True)
class _Unit:
    """Calls from one waist of the graph to a later one: one layer that computes and what belongs to it."""

    start: int
    calls: tuple[Call, ...]
    residual: bool = False

    @property
    def end(self) -> int:
        return self.calls[-1].index


def find_blocks(model: Any) -> tuple[Block, ...]:
    """All blocks a flat model with one input and one output can do without, in order."""
    graph = walk(model)
    units = list(_units(graph))
    found = [_block(graph, (unit,), residual=True) for unit in units if unit.residual]
    for run in _runs(units):
        found += [_block(graph, again, residual=False) for again in _repeats(run)]
    return tuple(sorted(found, key=lambda block: block.start))


def spread(count: int, keep: int) -> tuple[int, ...]:
    """`keep` of the numbers 0 .. count - 1, evenly spread."""
    return tuple(i for i in range(count) if (i + 1) * keep // count > i * keep // count)


def without(model: Any, blocks: Collection[Block]) -> Any:
    """A copy of the model in which these blocks give what they read; every other layer keeps its weights."""
    image = input_like(model.inputs[0])
    calls = walk(model).calls
    passed = {id(calls[block.end].node): calls[block.start].node.outputs[0] for block in blocks}
    outputs = _Shortened({model.inputs[0].name, image.name}, passed).run(model, [image], prefix="")
    return keras.Model(image, outputs[0], name=model.name)


class _Shortened(Builder):
    """passed: last node of each block that goes (id) -> the tensor that the block reads."""

    def __init__(self, taken: set[str], passed: dict[int, Any]) -> None:
        super().__init__(taken)
        self._passed = passed

    def call(self, node: Any, values: dict[int, Any], prefix: str) -> list[Any]:
        source = self._passed.get(id(node))
        return super().call(node, values, prefix) if source is None else [values[id(source)]]


def _block(graph: Graph, units: Sequence[_Unit], *, residual: bool) -> Block:
    names = dict.fromkeys(call.name for unit in units for call in unit.calls)
    end = units[-1].end
    return Block(units[0].start, end, tuple(names), graph.calls[end].output_shapes[0], residual)


def _units(graph: Graph) -> Iterator[_Unit]:
    """The graph cut where all goes through one tensor, an activation or a normalization with what it follows."""
    ends = waists(graph)
    unit: _Unit | None = None
    for before, after in pairwise(ends):
        calls = tuple(call for call in graph.calls if before.index < call.index <= after.index)
        alone = len(calls) == 1
        if unit is not None and alone and after.kind in FOLLOWING and _joins(graph, unit, after):
            unit = _Unit(unit.start, (*unit.calls, *calls), unit.residual)
            continue
        if unit is not None:
            yield unit
        unit = _Unit(before.index, calls, _adds_to(before, after))
    if unit is not None:
        yield unit


def _joins(graph: Graph, unit: _Unit, after: Call) -> bool:
    """Whether a following layer goes with the unit: always, but behind an addition only an activation done already.

    A residual block that is left out gives what it read; where that came out of the same activation, doing it again
    changes nothing, and where it did not, the next layer still wants it.
    """
    if not unit.residual:
        return True
    first = graph.calls[unit.start]
    return after.kind in ACTIVATIONS and _function(first) == _function(after)


def _function(call: Call) -> tuple[Any, ...]:
    """What a layer's activation computes, whether it is a layer of its own or part of another."""
    config = call.layer.get_config() if call.kind == "ReLU" else {}
    limits = tuple(config.get(key) or None for key in ("max_value", "negative_slope", "threshold"))
    if any(limits):
        return ("relu6",) if limits == (6, None, None) else ("relu", limits)
    own = call.kind in ACTIVATIONS and not hasattr(call.layer, "activation")
    return (activation_name(call.layer), *(_settings(call)[1:2] if own and call.kind != "ReLU" else ()))


def _adds_to(before: Call, after: Call) -> bool:
    """Whether a call adds something to what another one gave, at the same shape."""
    reads_it = any(edge.call == before.index for edge in after.inputs)
    same = before.output_shapes[0] == after.output_shapes[0]
    return after.kind == "Add" and len(after.inputs) > 1 and reads_it and same


def _runs(units: Sequence[_Unit]) -> Iterator[list[_Unit]]:
    """Stretches of units that are not residual."""
    run: list[_Unit] = []
    for unit in units:
        if not unit.residual:
            run.append(unit)
        elif run:
            yield run
            run = []
    if run:
        yield run


def _repeats(units: Sequence[_Unit]) -> Iterator[Sequence[_Unit]]:
    """Groups of units that equal those right before them."""
    marks = [tuple(_settings(call) for call in unit.calls) for unit in units]
    place = 0
    while place < len(units):
        period = next((n for n in range(1, MOST_PERIOD + 1) if _again(units, marks, place, n)), 0)
        if not period:
            place += 1
            continue
        while _again(units, marks, place, period):
            place += period
            yield units[place : place + period]
        place += period


def _again(units: Sequence[_Unit], marks: Sequence[Any], place: int, period: int) -> bool:
    """Whether `period` units from `place` on are there once more right after, and compute something."""
    first, second = marks[place : place + period], marks[place + period : place + 2 * period]
    learns = any(getattr(call.layer, "weights", ()) for unit in units[place : place + period] for call in unit.calls)
    return len(second) == period and first == second and learns


def _settings(call: Call) -> tuple[Any, ...]:
    """What two layers have in common that do the same to the same shapes."""
    config = call.layer.get_config() if isinstance(call.layer, keras.layers.Layer) else {}
    known = {key: value for key, value in config.items() if key not in _OWN}
    return call.kind, repr(sorted(known.items())), repr(call.constants), call.input_shapes, call.output_shapes
