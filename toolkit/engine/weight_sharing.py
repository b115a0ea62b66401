"""Shared weights of a training: what the optimizer moves are the centroids, and each kernel is made of them.

A centroid's gradient is the sum of those of the weights that have it (Han, Mao, Dally 2016, arXiv:1510.00149, section
3.3). Where weights may go to another centroid, each has a free value beside it that follows its own gradient, as if it
were not shared, and decides which centroid is nearest: tensorflow-model-optimization's rule (clustering_algorithm.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from toolkit.codebook import Codebook, Per
from toolkit.engine.clusters import Sharing, as_rows, channel_axis, codebooks, nearest
from toolkit.engine.eligible import kernel_of
from toolkit.errors import UnsupportedError

Array = NDArray[Any]
CLOSE = 1e-4  # of the largest weight: float32 products of the same numbers in another order


class SharedWeights:
    """Of the kernels of a graph that learns; they have shared values from the start."""

    def __init__(self, graph: Any, how: Sharing) -> None:
        made = (_made(graph.get_layer(name), codebook, how) for name, codebook in how.made.items())
        held = (_held(graph.get_layer(name), codebook, how) for name, codebook in how.held.items())
        self._all = [*made, *held]
        self._by_kernel = {id(each.kernel): each for each in self._all}
        self.makes = bool(how.made)
        self.lay_on()

    @property
    def variables(self) -> list[Any]:
        """What a checkpoint has to keep."""
        return [variable for each in self._all for variable in each.variables]

    def instead(self, variables: Sequence[Any]) -> list[Any]:
        """What the optimizer moves in place of these."""
        own = self._by_kernel
        return [new for old in variables for new in (own[id(old)].learn if id(old) in own else (old,))]

    def gradients(self, variables: Sequence[Any], gradients: Sequence[Any]) -> list[Any]:
        """Of what `instead` gives, from those of the variables."""
        own, found = self._by_kernel, []
        for variable, gradient in zip(variables, gradients, strict=True):
            found += own[id(variable)].gradients(gradient) if id(variable) in own else [gradient]
        return found

    def lay_on(self) -> None:
        """Each kernel from its centroids; in the compiled step, behind the optimizer."""
        for each in self._all:
            each.lay_on()


class _Shared:
    """One kernel: `centroids`, a row for each codebook; `places`, which of its row's each weight has.

    factor: of each output channel; the kernel is the centroids' values times it. free: what each weight would be, None
    where weights stay with their centroid. zero: centroids of 0 stay 0, and so do the weights that have one at first.
    """

    def __init__(self, layer: Any, per: Per, rows: tuple[Array, Array], *, factor: Array | None, zero: bool) -> None:
        """rows: centroids and places."""
        centroids, places = rows
        self.kernel, self._per, self._axis = kernel_of(layer), per, channel_axis(layer)
        self._factor = None if factor is None or (factor == 1).all() else tf.constant(factor, tf.float32)
        self.centroids = keras.Variable(centroids, dtype="float32", name=f"{layer.name}_centroids")
        self.places = tf.Variable(places)
        self._live = tf.constant(centroids != 0, tf.float32) if zero else None
        self._stays = tf.constant(np.take_along_axis(centroids, places, 1) != 0, tf.float32) if zero else None
        self.free: Any | None = None

    def set_free(self, rows: Array) -> None:
        self.free = keras.Variable(rows, dtype="float32", name=f"{self.centroids.name}_free")

    @property
    def learn(self) -> list[Any]:
        return [self.centroids] if self.free is None else [self.centroids, self.free]

    @property
    def variables(self) -> list[Any]:
        return [*self.learn, self.places]

    def gradients(self, gradient: Any) -> list[Any]:
        if gradient is None:
            return [None] * len(self.learn)
        rows = self._rows(gradient if self._factor is None else gradient * self._factor)
        count, size = self.centroids.shape
        which = tf.convert_to_tensor(self.places) + size * tf.range(count)[:, None]
        flat = tf.reshape(rows, [-1]), tf.reshape(which, [-1])
        summed = tf.reshape(tf.math.unsorted_segment_sum(*flat, count * size), [count, size])
        return [summed] if self.free is None else [summed, rows]

    def lay_on(self) -> None:
        if self._live is not None:
            self.centroids.assign(tf.convert_to_tensor(self.centroids) * self._live)
        centroids = tf.convert_to_tensor(self.centroids)
        if self.free is not None:
            if self._stays is not None:
                self.free.assign(tf.convert_to_tensor(self.free) * self._stays)
            self.places.assign(_nearest(tf.convert_to_tensor(self.free), centroids))
        values = self._whole(tf.gather(centroids, tf.convert_to_tensor(self.places), batch_dims=1))
        self.kernel.assign(values if self._factor is None else values * self._factor)

    def _rows(self, x: Any) -> Any:
        """engine.clusters.as_rows, of a tensor."""
        if self._per == "layer":
            return tf.reshape(x, [1, -1])
        return tf.reshape(tf.experimental.numpy.moveaxis(x, self._axis, 0), [x.shape[self._axis], -1])

    def _whole(self, rows: Any) -> Any:
        """engine.clusters.as_kernel, of a tensor."""
        shape = tuple(self.kernel.shape)
        if self._per == "layer":
            return tf.reshape(rows, shape)
        rest = [size for place, size in enumerate(shape) if place != self._axis % len(shape)]
        return tf.experimental.numpy.moveaxis(tf.reshape(rows, [shape[self._axis], *rest]), 0, self._axis)


def _nearest(rows: Any, centroids: Any) -> Any:
    """engine.clusters.nearest, of tensors."""
    order = tf.argsort(centroids, axis=-1, stable=True)
    ascending = tf.gather(centroids, order, batch_dims=1)
    found = tf.searchsorted((ascending[:, 1:] + ascending[:, :-1]) / 2, rows)
    return tf.gather(order, found, batch_dims=1)


def _made(layer: Any, codebook: Codebook, how: Sharing) -> _Shared:
    """A codebook found here."""
    zero = layer.name in how.zeros
    rows = as_rows(np.asarray(kernel_of(layer)), codebook.per, channel_axis(layer))
    centroids = codebooks(rows, codebook.values, how.start, zero=zero, seed=how.seed)
    found = _Shared(layer, codebook.per, (centroids, nearest(rows, centroids)), factor=None, zero=zero)
    if how.renewed:
        found.set_free(rows)
    return found


def _held(layer: Any, codebook: Codebook, how: Sharing) -> _Shared:
    """The codebook that a kernel has, or that `how.like` has for it but for a factor of each output channel.

    UnsupportedError where the kernel is not that.
    """
    own, axis = np.asarray(kernel_of(layer)), channel_axis(layer)
    like = how.like.get(layer.name, own)
    centroids, places = _seen(as_rows(like, codebook.per, axis))
    if centroids.shape[1] > codebook.values:
        raise UnsupportedError(layer.name, f"has {centroids.shape[1]} values, and was said to have {codebook}")
    factor = _factor(own, like, axis)
    if codebook.per == "channel":
        centroids, factor = centroids * as_rows(factor, "channel", axis), np.ones_like(factor)
    usual = float(np.sqrt(np.mean(np.square(factor)))) or 1.0  # a step is as large as without a factor
    rows = (centroids * usual).astype(np.float32), places
    found = _Shared(layer, codebook.per, rows, factor=factor / usual, zero=layer.name in how.zeros)
    found.lay_on()
    if np.abs(np.asarray(found.kernel) - own).max(initial=0.0) > CLOSE * np.abs(own).max(initial=0.0):
        raise UnsupportedError(
            layer.name, "its weights no longer share their values", "cluster after what changed them"
        )
    return found


def _seen(rows: Array) -> tuple[Array, Array]:
    """Different values of each row, filled up with the last, and which of them each value is."""
    found = [np.unique(row, return_inverse=True) for row in rows]
    count = max(len(values) for values, _ in found)
    values = np.stack([np.pad(values, (0, count - len(values)), mode="edge") for values, _ in found])
    return values, np.stack([places.reshape(-1) for _, places in found]).astype(np.int32)


def _factor(own: Array, like: Array, axis: int) -> Array:
    """What each output channel is multiplied with, as a kernel of one value each; 1 where it is all zeros."""
    axes = tuple(place for place in range(own.ndim) if place != axis % own.ndim)
    square = np.sum(np.square(like, dtype=np.float64), axis=axes, keepdims=True)
    product = np.sum(np.multiply(own, like, dtype=np.float64), axis=axes, keepdims=True)
    return np.asarray(np.where(square > 0, product / np.where(square > 0, square, 1), 1.0))
