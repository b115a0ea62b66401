"""Cut channels out of a Keras model: each layer is made anew from its config with fewer of them, weights cut to fit.

Names, inputs and outputs and their order, data types and every other weight stay; the model given is left untouched.
The law this keeps: the cut model computes what the original computes with those channels' weights set to zero.
"""

from __future__ import annotations

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
Cuts = dict[tuple[str, int, int], Indexes]  # layer, weight index, axis -> positions that go


def remove(model: Any, removals: Removals) -> Any:
    """A new model without the named channels of the named groups (groups.find_groups gives both).

    InputError for an unknown group or channel, or where none would be left; UnsupportedError for a frozen group.
    """
    cuts = _cuts(find_groups(model), removals)
    weights = {layer.name: _cut(layer, cuts) for layer in model.layers}
    return rebuild(model, weights, lambda layer: _config_changes(layer, weights[layer.name], cuts))


def mask(model: Any, removals: Removals) -> Any:
    """A new model of the same shape in which everything that `remove` would take out is zero."""
    cuts = _cuts(find_groups(model), removals)
    return rebuild(model, {layer.name: _zeroed(layer, cuts) for layer in model.layers})


def rebuild(
    model: Any,
    weights: Mapping[str, Sequence[Array]],
    config_changes: Callable[[Any], Mapping[str, Any]] = lambda layer: {},
) -> Any:
    """A copy of a flat functional model with these weights (all layers' own where not named) and layer settings."""

    def copy(layer: Any) -> Any:
        changes = config_changes(layer) if isinstance(layer, keras.Layer) else {}
        return type(layer).from_config({**layer.get_config(), **changes})

    inputs = keras.tree.map_structure(_input, model.input)
    new = keras.models.clone_model(model, input_tensors=inputs, clone_function=copy)
    for layer in model.layers:
        twin = new.get_layer(layer.name)
        twin.set_weights(weights.get(layer.name, layer.get_weights()))
        if isinstance(twin, layers.Normalization):
            twin.finalize_state()  # it computes with constants made from its weights
    return new


def _input(tensor: Any) -> Any:
    """A new model input with the names of tensor and layer (clone_model would name the layer after the tensor)."""
    twin = keras.KerasTensor(tensor.shape, dtype=tensor.dtype, name=tensor.name)
    return keras.Input(tensor=twin, name=tensor._keras_history.operation.name)


def _cuts(groups: Iterable[Group], removals: Removals) -> Cuts:
    """Where each weight is cut; removals are checked first."""
    known = {group.id: group for group in groups}
    cuts: Cuts = {}
    for name, channels in removals.items():
        if name not in known:
            raise InputError(name, "is not a channel group of this model", "take ids from find_groups(model)")
        gone = _checked(known[name], np.unique(np.asarray(channels, np.intp)))
        for slot in known[name].slots if len(gone) else ():
            key = (slot.layer, slot.index, slot.axis)
            cuts[key] = np.union1d(cuts.get(key, gone[:0]), slot.positions[gone])
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
    for (name, index, axis), positions in cuts.items():
        if name == layer.name and index >= 0:
            weights[index] = np.delete(weights[index], positions, axis)
    return weights


def _zeroed(layer: Any, cuts: Cuts) -> list[Array]:
    weights = [weight.copy() for weight in layer.get_weights()]
    for (name, index, axis), positions in cuts.items():
        if name == layer.name and index >= 0:
            np.moveaxis(weights[index], axis, 0)[positions] = 0
    return weights


def _config_changes(layer: Any, weights: Sequence[Array], cuts: Cuts) -> dict[str, Any]:
    """Settings of a layer that follow from its cut weights (or, for Reshape, from its cut target shape)."""
    shapes = {variable.name: weight.shape for variable, weight in zip(layer.weights, weights, strict=True)}
    if isinstance(layer, layers.Dense):
        return {"units": shapes["kernel"][1]}
    if isinstance(layer, layers.Conv1DTranspose | layers.Conv2DTranspose | layers.Conv3DTranspose):
        return {"filters": shapes["kernel"][-2]}
    if isinstance(layer, layers.SeparableConv1D | layers.SeparableConv2D):
        return {"filters": shapes["pointwise_kernel"][-1]}
    if isinstance(layer, layers.Conv1D | layers.Conv2D | layers.Conv3D):
        filters = shapes["kernel"][-1]
        one_each = (
            layer.groups > 1 and layer.kernel.shape[-2] == 1
        )  # a group for each input channel: groups follow the channels
        return {"filters": filters, "groups": layer.groups * filters // layer.filters if one_each else layer.groups}
    last = (layer.name, -1, len(getattr(layer, "target_shape", ())) - 1)
    if last in cuts:
        return {"target_shape": (*layer.target_shape[:-1], layer.target_shape[-1] - len(cuts[last]))}
    return {}
