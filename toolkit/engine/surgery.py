"""Cut channels out of a Keras model: each layer is made anew from its config with fewer of them, weights cut to fit.

Names, inputs and outputs and their order, data types and every other weight stay; the model given is left untouched.
The law this keeps: the cut model computes what the original computes with those channels' weights set to zero.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from toolkit.engine.groups import Group, find_groups
from toolkit.errors import InputError, UnsupportedError

Array = NDArray[Any]
Indexes = NDArray[np.intp]
Removals = Mapping[str, Sequence[int] | Indexes]  # id of a group -> its channels that go
Cuts = dict[tuple[int, int], Indexes]  # index of a layer's weight, axis -> positions that go


def remove(model: Any, removals: Removals) -> Any:
    """A new model without the named channels of the named groups (groups.find_groups gives both).

    InputError for an unknown group or channel, or where none would be left; UnsupportedError for a frozen group.
    """
    cuts = _cuts(find_groups(model), removals)
    return _copy(
        model, lambda layer: _cut(layer, cuts[layer.name]), lambda layer: _config_changes(layer, cuts[layer.name])
    )


def mask(model: Any, removals: Removals) -> Any:
    """A new model of the same shape in which everything that `remove` would take out is zero."""
    cuts = _cuts(find_groups(model), removals)
    return _copy(model, lambda layer: _zeroed(layer, cuts[layer.name]))


def rebuild(
    model: Any,
    weights: Mapping[str, Sequence[Array]],
    config_changes: Callable[[Any], Mapping[str, Any]] = lambda layer: {},
) -> Any:
    """A copy of a flat functional model with these weights (all layers' own where not named) and layer settings."""

    def given(layer: Any) -> Sequence[Array]:
        found: Sequence[Array] = weights[layer.name] if layer.name in weights else layer.get_weights()
        return found

    return _copy(model, given, lambda layer: config_changes(layer) if isinstance(layer, keras.Layer) else {})


def drawn_anew(model: Any, seed: int) -> Any:
    """A copy with new weights from each layer's own initializers; Normalization keeps what it knows of the images."""
    keras.utils.set_random_seed(seed)
    return _copy(model, lambda layer: layer.get_weights() if isinstance(layer, layers.Normalization) else None)


def _copy(
    model: Any,
    weights: Callable[[Any], Sequence[Array] | None],
    config_changes: Callable[[Any], Mapping[str, Any]] = lambda layer: {},
) -> Any:
    """The model made anew. weights are asked for layer by layer, so that no second set of all of them is held; None
    leaves a layer with those it was made with.

    config_changes is asked for the bare operations of the graph as well.
    """

    def again(layer: Any) -> Any:
        return type(layer).from_config({**layer.get_config(), **config_changes(layer)})

    inputs = keras.tree.map_structure(input_like, model.input)
    new = keras.models.clone_model(model, input_tensors=inputs, clone_function=again)
    for layer in model.layers:
        twin = new.get_layer(layer.name)
        given = weights(layer)
        if given is not None:
            twin.set_weights(given)
        if isinstance(twin, layers.Normalization):
            twin.finalize_state()  # it computes with constants made from its weights
    return new


def input_like(tensor: Any) -> Any:
    """A new model input with the names of tensor and layer (clone_model would name the layer after the tensor)."""
    twin = keras.KerasTensor(tensor.shape, dtype=tensor.dtype, name=tensor.name)
    return keras.Input(tensor=twin, name=tensor._keras_history.operation.name)


def _cuts(groups: Iterable[Group], removals: Removals) -> Mapping[str, Cuts]:
    """Where the weights of each layer are cut; removals are checked first."""
    known = {group.id: group for group in groups}
    cuts: dict[str, Cuts] = defaultdict(dict)
    for name, channels in removals.items():
        if name not in known:
            raise InputError(name, "is not a channel group of this model", "take ids from find_groups(model)")
        gone = _checked(known[name], np.unique(np.asarray(channels, np.intp)))
        for slot in known[name].slots if len(gone) else ():
            of_layer, key = cuts[slot.layer], (slot.index, slot.axis)
            of_layer[key] = np.union1d(of_layer.get(key, gone[:0]), slot.positions[gone])
    return cuts


def _checked(group: Group, channels: Indexes) -> Indexes:
    if len(channels) and group.frozen:
        raise UnsupportedError(group.id, f"cannot lose channels: {group.frozen}")
    if len(channels) and (channels[0] < 0 or channels[-1] >= group.size):
        raise InputError(group.id, f"has channels 0 to {group.size - 1}, got {channels[0]} to {channels[-1]}")
    if len(channels) == group.size:
        raise InputError(group.id, f"would lose all {group.size} channels", "leave at least one")
    return channels


def _cut(layer: Any, cuts: Cuts) -> list[Array]:
    weights: list[Array] = layer.get_weights()
    for (index, axis), positions in cuts.items():
        if index >= 0:
            weights[index] = np.delete(weights[index], positions, axis)
    return weights


def _zeroed(layer: Any, cuts: Cuts) -> list[Array]:
    weights: list[Array] = layer.get_weights()
    for (index, axis), positions in cuts.items():
        if index >= 0:
            weights[index] = weights[index].copy()
            np.moveaxis(weights[index], axis, 0)[positions] = 0
    return weights


def _config_changes(layer: Any, cuts: Cuts) -> dict[str, Any]:
    """Settings of a layer that follow from its cut weights, or that are themselves counted in channels."""
    if not cuts:
        return {}
    if isinstance(layer, layers.Dense):
        return {"units": _length(layer, "kernel", 1, cuts)}
    if isinstance(layer, layers.Conv1DTranspose | layers.Conv2DTranspose | layers.Conv3DTranspose):
        return {"filters": _length(layer, "kernel", -2, cuts)}
    if isinstance(layer, layers.SeparableConv1D | layers.SeparableConv2D):
        return {"filters": _length(layer, "pointwise_kernel", -1, cuts)}
    if isinstance(layer, layers.Conv1D | layers.Conv2D | layers.Conv3D):
        filters = _length(layer, "kernel", -1, cuts)
        by_channel = layer.groups > 1 and layer.kernel.shape[-2] == 1  # a group each: groups follow the channels
        return {"filters": filters, "groups": layer.groups * filters // layer.filters if by_channel else layer.groups}
    return _settings(layer, {axis: len(positions) for (index, axis), positions in cuts.items() if index < 0})


def _length(layer: Any, weight: str, axis: int, cuts: Cuts) -> int:
    """How long an axis of a weight is after the cut."""
    index, shape = next((n, own.shape) for n, own in enumerate(layer.weights) if own.name == weight)
    return int(shape[axis] - len(cuts.get((index, axis % len(shape)), ())))


def _settings(layer: Any, fewer: Mapping[int, int]) -> dict[str, Any]:
    """Settings that count channels, with fewer of them; fewer: by how many, for each entry of the setting."""
    if not fewer:
        return {}
    for name in ("target_shape", "newshape"):
        if hasattr(layer, name):
            return {name: tuple(size - fewer.get(axis, 0) for axis, size in enumerate(getattr(layer, name)))}
    name = "groups" if isinstance(layer, layers.GroupNormalization) else "projection_dim"
    return {name: getattr(layer, name) - fewer[0]}
