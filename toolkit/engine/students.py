"""Smaller networks in a model's place: fewer channels, another network of keras.applications, or the user's own.

Width multipliers are those of MobileNet (Howard et al. 2017, arXiv:1704.04861, section 3.3); engine/blocks.py drops
blocks. What comes out has the input of the model it stands for; where it wants other values there, a Rescaling layer
stands in front.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from toolkit.engine import backbone, importance, widths
from toolkit.engine.flatten import Builder
from toolkit.engine.groups import Group, find_groups
from toolkit.engine.heads import droppable
from toolkit.engine.surgery import drawn_anew, input_like, rebuild, remove
from toolkit.engine.widths import Rounding
from toolkit.errors import InputError, UnsupportedError
from toolkit.registry import suggest

SCALING = "student_scaling"  # name of the layer in front
# networks of keras.applications that take pixels 0..255 and scale them inside; source: each module's preprocess_input
SCALE_INSIDE = ("EfficientNet", "MobileNetV3", "ConvNeXt")


@dataclass(frozen=True)
class Scaling:
    """What a network takes of a pixel 0..255: pixel * scale + offset, one value or one for each channel."""

    scale: tuple[float, ...] = (1.0,)
    offset: tuple[float, ...] = (0.0,)


PIXELS = Scaling()
SIGNED = Scaling((1 / 127.5,), (-1.0,))  # -1..1


@dataclass(frozen=True)
class Narrowed:
    """A network with fewer channels, and of each group how many are left."""

    graph: Any
    groups: tuple[Group, ...]
    widths: Mapping[str, int]


def narrowed(model: Any, width: float, round_to: int) -> Narrowed:
    """A flat model with about the share `width` of its channels, those of the largest weights (l2), and their weights.

    Raises UnsupportedError where no channel can go, InputError where rounding leaves every layer as wide as it was.
    """
    groups, rounding = find_groups(model), Rounding(round_to)
    free = [group for group in groups if not group.frozen]
    if not free:
        raise UnsupportedError("width", "no layer of this model can be narrower", "set depth, application or source")
    found = widths.uniform(free, 1 - width, rounding)
    scores = importance.scores(model, free, "l2")
    gone = {group.id: np.argsort(scores[group.id], kind="stable")[: group.size - found[group.id]] for group in free}
    if not any(map(len, gone.values())):
        problem = f"leaves every layer as wide as it is, in multiples of {round_to}"
        raise InputError(f"width = {width:g}", problem, "lower round_to or width")
    return Narrowed(remove(model, gone), groups, found)


def application(name: str, shape: Sequence[int], head: backbone.Head, alpha: float | None, *, seed: int) -> Any:
    """A network of keras.applications with random weights and a head of its own kind for these outputs.

    shape: (height, width, channels). alpha: its width multiplier, where it has one. InputError for what it refuses.
    """
    keras.utils.set_random_seed(seed)
    make = getattr(keras.applications, name, None)
    if make is None or not name[:1].isupper() or not callable(make):
        known = [found for found in dir(keras.applications) if found[:1].isupper()]
        raise InputError("application", f"keras.applications has no {name!r}", suggest(name, known))
    more: dict[str, Any] = {"classes": head.columns, "classifier_activation": backbone.ACTIVATIONS.get(head.meaning)}
    if alpha is not None:
        check_alpha(name)
        more["alpha"] = alpha
    try:
        return make(input_shape=tuple(shape), weights=None, **more)
    except ValueError as error:
        line = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        problem = f"keras.applications.{name} refuses images of {tuple(shape)}: {line}"
        raise InputError("application", problem) from error


def check_alpha(name: str) -> None:
    """InputError where the network called `name` has no width multiplier."""
    make = getattr(keras.applications, name, None)
    if make is not None and "alpha" not in inspect.signature(make).parameters:
        problem = f"keras.applications.{name} has no width multiplier"
        raise InputError("alpha", problem, "leave it out, or name a MobileNet")


def with_new_head(features: Any, head: backbone.Head, *, seed: int) -> Any:
    """A backbone (engine.backbone.features) with average pooling and a new dense layer, drawn by this seed."""
    keras.utils.set_random_seed(seed)
    return backbone.transferred(features, head).graph


def fresh(model: Any, seed: int) -> Any:
    """The same network with new weights."""
    return drawn_anew(model, seed)


def ending_in(graph: Any, before: str, after: str) -> Any | None:
    """The network with another last activation, "linear" for none; None where the one it has cannot be dropped.

    before, after: "linear", "softmax", "sigmoid" or "sigmoids".
    """
    if before != "linear":
        last = droppable(graph, before)
        if getattr(last, "activation", None) is None:
            return None
        graph = rebuild(graph, {}, lambda layer: {"activation": "linear"} if layer is last else {})
    if after == "linear":
        return graph
    taken = {layer.name for layer in graph.layers}
    name = next(free for free in ("answers", "student_answers", "new_student_answers") if free not in taken)
    outputs = keras.layers.Activation(backbone.ACTIVATIONS[after], name=name)(graph.outputs[0])
    return keras.Model(graph.inputs[0], outputs, name=graph.name)


def between(given: Scaling, wanted: Scaling) -> Scaling | None:
    """What turns inputs scaled the one way into those scaled the other way; None where they are the same.

    pixel = (x - offset) / scale, so that x is multiplied by wanted.scale / given.scale, and so on.
    """
    a, b, c, d = (np.asarray(x, np.float64) for x in (given.scale, given.offset, wanted.scale, wanted.offset))
    scale, offset = np.broadcast_arrays(c / a, d - b * c / a)
    if np.allclose(scale, 1, rtol=1e-6) and np.allclose(offset, 0, atol=1e-6):
        return None
    return Scaling(*(tuple(map(float, x if (x != x[0]).any() else x[:1])) for x in (scale, offset)))


def in_place_of(model: Any, student: Any, scaling: Scaling | None = None) -> Any:
    """The student as a flat float32 network on an input like the model's, of the same name and shape.

    InputError where it cannot take such images.
    """
    ours, theirs = tuple(model.inputs[0].shape[1:]), tuple(student.inputs[0].shape[1:])
    if len(ours) != len(theirs) or any(b is not None and a != b for a, b in zip(ours, theirs, strict=True)):
        raise InputError("student", f"takes inputs of {list(theirs)}, the model of {list(ours)}", "give one that fits")
    image = x = input_like(model.inputs[0])
    if scaling is not None:
        x = keras.layers.Rescaling(_plain(scaling.scale), _plain(scaling.offset), name=SCALING)(x)
    names = {model.inputs[0].name, image._keras_history.operation.name, SCALING}
    outputs = Builder(names).run(student, [x], prefix="student_")
    return keras.Model(image, outputs[0], name=student.name)


def _plain(values: tuple[float, ...]) -> float | list[float]:
    return values[0] if len(values) == 1 else list(values)
