"""What a student learns beside its teacher's outputs: which layers are compared, and what of them.

Layers are matched by name, or by resolution: the last activation of each. Where a hint's layers differ in width, a 1x1
projection, which learns along and is dropped afterwards, stands between them (Romero et al. 2015, arXiv:1412.6550).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import keras
import tensorflow as tf

from toolkit.engine import feature_loss
from toolkit.engine.graph import Call, Edge, Graph, walk
from toolkit.engine.heads import activation_name, is_noise
from toolkit.errors import InputError, UnsupportedError

Part = Literal["hints", "attention", "relational"]
Layers = tuple[tuple[str, str], ...]  # (student's, teacher's); () matches by resolution

# keras.layers and keras.ops without an `activation` of their own
SIGMOIDS = frozenset(("sigmoid", "hardsigmoid", "tanh", "softplus"))
RECTIFIERS = frozenset(("relu", "relu6", "leakyrelu", "prelu", "elu", "selu", "celu", "gelu"))
ACTIVATIONS = SIGMOIDS | RECTIFIERS | frozenset(("silu", "swish", "hardsilu", "hardswish"))
MERGES = frozenset(("Add", "Multiply", "Concatenate", "Average", "Maximum"))


@dataclass(frozen=True)
class Hints:
    """Features like the teacher's."""

    layers: Layers = ()
    weight: float = 1.0


@dataclass(frozen=True)
class Attention:
    """Looking where the teacher looks."""

    layers: Layers = ()
    weight: float = 1000.0


@dataclass(frozen=True)
class Relational:
    """Images of a batch lying to each other as they do for the teacher. Weights of distances and angles."""

    on: Literal["features", "logits"] = "features"
    distance: float = 25.0
    angle: float = 50.0


@dataclass(frozen=True)
class Beside:
    """All that is learned beside the outputs."""

    hints: Hints | None = None
    attention: Attention | None = None
    relational: Relational | None = None

    @property
    def any(self) -> bool:
        return any((self.hints, self.attention, self.relational))

    @property
    def looks_inside(self) -> bool:
        """Whether it needs more of the teacher than its outputs."""
        inside = self.relational is not None and self.relational.on == "features"
        return bool(self.hints or self.attention or inside)


@dataclass(frozen=True)
class Place:
    """What a layer gives. shape: without the batch."""

    layer: str
    shape: tuple[int | None, ...]
    tensor: Any


@dataclass(frozen=True)
class Match:
    """Two places that are compared, and for what."""

    part: Part
    student: Place
    teacher: Place

    @property
    def is_projected(self) -> bool:
        return self.part == "hints" and self.student.shape[-1] != self.teacher.shape[-1]


# ---------------------------------------------------------------- which layers


def match(student: Any, teacher: Any, asked: Beside) -> tuple[Match, ...]:
    """The places that are compared, of two flat Keras models.

    InputError: a layer that is not there, or two of unlike shape. UnsupportedError: no layers can be matched.
    """
    own, theirs = walk(student), walk(teacher)
    found: list[Match] = []
    for part, how in (("hints", asked.hints), ("attention", asked.attention)):
        if how is None:
            continue
        name: Part = "hints" if part == "hints" else "attention"
        pairs = _named(own, theirs, how.layers, name) if how.layers else _by_resolution(own, theirs, name)
        found += [Match(name, *pair) for pair in pairs]
    if asked.relational is not None and asked.relational.on == "features":
        found.append(Match("relational", penultimate(own), penultimate(theirs)))
    return tuple(found)


def penultimate(graph: Graph) -> Place:
    """What the last layer with weights reads, before any dropout: noise says nothing of how images lie."""
    call = graph.calls[graph.outputs[0].call]
    while not _multiplies(call) and call.inputs:
        call = graph.calls[call.inputs[0].call]
    edge = call.inputs[0] if call.inputs else None
    while edge is not None and is_noise(graph.calls[edge.call].layer):
        edge = graph.calls[edge.call].inputs[0]
    if edge is None or not graph.calls[edge.call].inputs:
        problem = "a network has no layer in front of the one that decides"
        raise UnsupportedError("relational.on 'features'", problem, 'set on = "logits"')
    return _place(graph, edge)


def _named(own: Graph, theirs: Graph, layers: Layers, part: Part) -> Iterator[tuple[Place, Place]]:
    for first, second in layers:
        pair = _find(own, first, part, "student"), _find(theirs, second, part, "teacher")
        _check_shapes(pair, part)
        yield pair


def _find(graph: Graph, name: str, part: Part, whose: str) -> Place:
    """The layer of that name; of several uses of it the last."""
    calls = [call for call in graph.calls if call.name == name]
    if not calls:
        fix = "see `edgekit inspect` for the names of a model's layers"
        raise InputError(f"{part}.layers", f"the {whose} has no layer {name!r}", fix)
    return _place(graph, Edge(calls[-1].index))


def _check_shapes(places: tuple[Place, Place], part: Part) -> None:
    ours, theirs = (place.shape[:-1] for place in places)
    sides = zip(ours, theirs, strict=False)
    fits = len(ours) == len(theirs) and all(None in pair or len(set(pair)) == 1 for pair in sides)
    shapes = " and ".join(f"{place.layer!r} gives {_shown(place.shape)}" for place in places)
    if not fits:
        raise InputError(f"{part}.layers", f"{shapes}", "name layers of one resolution; channels may differ")
    if part == "attention" and len(ours) != 2:
        raise InputError(f"{part}.layers", f"{shapes}: no map of places to look at", "name layers that give images")


def _by_resolution(own: Graph, theirs: Graph, part: Part) -> list[tuple[Place, Place]]:
    """The student's last activation of each resolution with the teacher's.

    Of a network that was made from the teacher's, with the layer of its name, as long as that has the resolution.
    """
    ours, last = _last_activations(own), _last_activations(theirs)
    named = {call.name: _place(theirs, Edge(call.index)) for call in theirs.calls}
    kin = all(call.name in named for call in own.calls if _multiplies(call))
    pairs = []
    for resolution, place in ours.items():
        same = named.get(place.layer) if kin else None
        fits = same is not None and same.shape[:-1] == resolution
        other = same if fits else last.get(resolution)
        if other is not None:
            pairs.append((place, other))
    if not pairs:
        problem = "student and teacher have no activations of one resolution"
        raise UnsupportedError(f"{part}.layers 'auto'", problem, 'name them: { student_layer = "teacher_layer" }')
    return pairs


def _last_activations(graph: Graph) -> dict[tuple[int | None, ...], Place]:
    """Resolution -> where it is left, of all that give images of more than one place."""
    found: dict[tuple[int | None, ...], Place] = {}
    for call in graph.calls:
        place = _place(graph, Edge(call.index))
        if _is_activation(call) and len(place.shape) == 3 and place.shape[:2] != (1, 1):
            found[place.shape[:2]] = place
    return found


def _is_activation(call: Call) -> bool:
    name = activation_name(call.layer)
    own = getattr(call.layer, "activation", None) is not None and name != "linear"
    return own or name in ACTIVATIONS or call.kind in MERGES


def _multiplies(call: Call) -> bool:
    """Whether it has weights to multiply with; a separable convolution has two kinds, of other names."""
    return hasattr(call.layer, "kernel") or hasattr(call.layer, "pointwise_kernel")


def _place(graph: Graph, edge: Edge) -> Place:
    call = graph.calls[edge.call]
    return Place(call.name, tuple(call.output_shapes[edge.output][1:]), call.node.outputs[edge.output])


def _shown(shape: tuple[int | None, ...]) -> str:
    return "x".join("?" if size is None else str(size) for size in shape)


def words(found: Match) -> str:
    """What is learned there, for people: `hints of 'relu' (8x8, 16 -> 32 channels by a projection that is dropped)`."""
    *places, channels = found.student.shape
    where = f"{_shown(tuple(places))}, " if places else ""
    width = f"{channels} channels"
    if found.is_projected:
        width = f"{channels} -> {found.teacher.shape[-1]} channels by a projection that is dropped"
    what = "relations" if found.part == "relational" else found.part
    return f"{what} of the teacher's {found.teacher.layer!r} ({where}{width})"


# ---------------------------------------------------------------- in training


class Lessons:
    """Everything compared beside the outputs. student: gives its output, then the features that are looked at.

    teacher: the same of a Keras teacher, None where nothing inside it is looked at.
    """

    def __init__(self, student: Any, teacher: Any | None, asked: Beside, seed: int) -> None:
        self._asked = asked
        if asked.looks_inside and teacher is None:
            part = "hints" if asked.hints else "attention" if asked.attention else "relational"
            problem = "needs the layers of one Keras teacher; this one shows its outputs alone"
            raise UnsupportedError(part, problem, 'leave it out, or name one .keras model (relational: on = "logits")')
        self.matches = match(student, teacher, asked) if teacher is not None else ()
        self.student = _tapped(student, [found.student for found in self.matches])
        self.teacher = _tapped(teacher, [found.teacher for found in self.matches]) if self.matches else None
        self._projections = [_projection(found, seed + i) for i, found in enumerate(self.matches)]

    @property
    def variables(self) -> list[Any]:
        """Of the projections, which learn with the student."""
        return [variable for one in self._projections if one is not None for variable in one.trainable_variables]

    def noted(self, features: Sequence[Any]) -> list[Any]:
        """What has to be known of the teacher's features: all of them for a hint, less for the rest."""
        return [_noted(found, value) for found, value in zip(self.matches, features, strict=True)]

    def parts(self, features: Sequence[Any], noted: Sequence[Any], rows: Any, taught: Any) -> dict[str, Any]:
        """Weighted losses by name, that the whole has beside those of the outputs.

        features: the student's; noted: what `noted` gave of the teacher's. rows, taught: the outputs of both, as losses
        are computed from them.
        """
        found: dict[str, list[Any]] = {"hints": [], "attention": []}
        related = (rows, taught)
        for one, value, theirs, projection in zip(self.matches, features, noted, self._projections, strict=True):
            if one.part == "relational":
                related = (_noted(one, value), theirs)
            elif one.part == "attention":
                found[one.part].append(feature_loss.attention(_noted(one, value), theirs))
            else:
                own = tf.cast(value, tf.float32)
                found[one.part].append(feature_loss.hint(own if projection is None else projection(own), theirs))
        weights = {name: getattr(self._asked, name).weight for name, values in found.items() if values}
        # the mean, so that a weight says the same for any number of layers
        parts = {name: weight * tf.add_n(found[name]) / len(found[name]) for name, weight in weights.items()}
        relational = self._asked.relational
        if relational is not None and relational.distance:
            parts["distances"] = relational.distance * feature_loss.distances(*related)
        if relational is not None and relational.angle:
            parts["angles"] = relational.angle * feature_loss.angles(*related)
        return parts


def _noted(found: Match, features: Any) -> Any:
    value = tf.cast(features, tf.float32)
    if found.part == "attention":
        return feature_loss.attention_map(value)
    return tf.reshape(value, (tf.shape(value)[0], -1)) if found.part == "relational" else value


def _projection(found: Match, seed: int) -> Any | None:
    """A dense layer over the last axis, which is a 1x1 convolution of images."""
    if not found.is_projected:
        return None
    start = keras.initializers.GlorotUniform(seed=seed)
    layer = keras.layers.Dense(found.teacher.shape[-1], kernel_initializer=start, dtype="float32")
    layer.build((None, *found.student.shape))
    return layer


def _tapped(model: Any, places: Sequence[Place]) -> Any:
    """The same layers as a model that gives its first output and these."""
    return keras.Model(model.inputs[0], [model.outputs[0], *(place.tensor for place in places)])
