"""Gates: a factor on what layers read, one for each channel that could be removed.

A gate of 0 at every layer that reads a channel computes what the network without that channel computes; so the slope
of the loss in the gate says, to first order, what removing the channel costs. One slope an image: the gates of a batch
are a row for each image.

A centred gate closes to the channel's mean in place of 0: what removing costs where renewed statistics or refitted
biases give the mean back ("Mean Replacement Pruning", Evci et al., 2018).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from toolkit.engine import heads, loss
from toolkit.engine.graph import walk
from toolkit.engine.groups import Group
from toolkit.engine.samples import Samples
from toolkit.engine.spread import spreads
from toolkit.errors import InputError

Array = NDArray[Any]
Indexes = NDArray[np.intp]
Labels = Literal["given", "drawn"]


@dataclass(frozen=True, eq=False)
class Gates:
    """One gate a channel, in the order of the groups.

    places: id of a group -> its gates. reads: layer -> the gate of each channel of its first input, `count` where that
    channel has none. centres: layer -> what a closed gate leaves of each channel; 0 where not named.
    """

    count: int
    places: Mapping[str, slice]
    reads: Mapping[str, Indexes]
    centres: Mapping[str, Array] = field(default_factory=dict)

    def split(self, values: Array) -> dict[str, Array]:
        """The last axis of `values`, group by group."""
        return {name: values[..., place] for name, place in self.places.items()}


def find_gates(model: Any, groups: Iterable[Group]) -> Gates:
    """Gates for all channels of the groups that are not frozen."""
    widths = {call.name: int(call.input_shapes[0][-1] or 0) for call in walk(model).calls if call.input_shapes}
    places: dict[str, slice] = {}
    reads: dict[str, Indexes] = {}
    count = 0
    for group in groups:
        if group.frozen:
            continue
        places[group.id] = slice(count, count + group.size)
        for slot in group.slots:
            if slot.side == "in":
                size = model.get_layer(slot.layer).weights[slot.index].shape[slot.axis]
                columns = reads.setdefault(slot.layer, np.full(widths[slot.layer], -1, np.intp))
                # a grouped convolution's kernel has the channels of one group: each place stands for one in each
                for start in range(0, widths[slot.layer] - size + 1, size):
                    columns[slot.positions + start] = np.arange(count, count + group.size)[:, None]
        count += group.size
    return Gates(count, places, {name: np.where(columns < 0, count, columns) for name, columns in reads.items()})


def centred(model: Any, gates: Gates, samples: Samples, layers: Collection[str]) -> Gates:
    """Gates that close, at these layers, to the means over all images and places; InputError without images."""
    found = spreads(model, [name for name in gates.reads if name in layers], samples)
    return replace(gates, centres={name: spread.mean for name, spread in found.items()})


def run(model: Any, gates: Gates, inputs: Sequence[Any], values: Any) -> Any:
    """What the model gives in inference with its gates at `values`: (images or 1, gates.count)."""
    padded = tf.concat([values, tf.ones_like(values[:, :1])], axis=1)  # the last one belongs to no channel

    def call(operation: Any, *args: Any, **kwargs: Any) -> Any:
        if operation.name not in gates.reads or not args:
            return operation(*args, **kwargs)
        first = args[0]
        factors = tf.gather(padded, gates.reads[operation.name], axis=1)
        shape = (-1, *(1,) * (len(first.shape) - 2), first.shape[-1])
        centre = tf.constant(gates.centres.get(operation.name, 0.0), first.dtype)
        gated = centre + (first - centre) * tf.cast(tf.reshape(factors, shape), first.dtype)
        return operation(gated, *args[1:], **kwargs)

    return model._run_through_graph(inputs, call_fn=call)  # what Functional.call itself does, with gates in between


def slopes(
    model: Any, gates: Gates, samples: Samples, *, head: str, labels: Labels = "given", seed: int = 0
) -> Iterator[Array]:
    """For each batch the slope of each image's loss in each open gate, float64 (images, gates.count).

    labels: "given" with the samples (InputError where they have none), or "drawn" from the distribution that the model
    itself predicts (with a spread of 1 around what is no probability), from the seed.
    """
    learner = heads.learner(model, head)
    step = tf.function(
        lambda inputs, known, seeds: _slopes(learner, gates, inputs, known, seeds),
        autograph=False,
        reduce_retracing=True,
    )
    for index, sample in enumerate(samples()):
        if labels == "given" and sample.labels is None:
            raise InputError(model.name, "the images have no labels", "name a split with labels")
        known = tf.constant(sample.labels) if labels == "given" else None
        inputs = [tf.convert_to_tensor(part) for part in sample.inputs]
        yield np.asarray(step(inputs, known, tf.constant([seed, index], tf.int32)), np.float64)


def _slopes(learner: heads.Learner, gates: Gates, inputs: Sequence[Any], known: Any, seeds: Any) -> Any:
    open_gates = tf.ones((tf.shape(inputs[0])[0], gates.count))
    with tf.GradientTape() as tape:
        tape.watch(open_gates)
        outputs = run(learner.graph, gates, inputs, open_gates)
        rows = loss.raw(keras.tree.flatten(outputs)[0], learner.head)
        if known is None:
            losses = _of_drawn(rows, learner.head, seeds)
        else:
            losses = loss.from_labels(rows, known, learner.head, loss.Target())
    found = tape.gradient(losses, open_gates, unconnected_gradients="zero")  # the sum's: an image's gates touch its own
    return tf.convert_to_tensor(found)


def _of_drawn(rows: Any, head: str, seeds: Any) -> Any:
    """Loss of each image for labels drawn from what the model predicts."""
    held = tf.stop_gradient(rows)
    if head in loss.DECISIONS:
        drawn = tf.random.stateless_categorical(held, 1, seeds)[:, 0]
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=drawn, logits=rows)
    if head in ("sigmoids", loss.RAW_LABELS):
        drawn = tf.cast(tf.random.stateless_uniform(tf.shape(held), seeds) < tf.sigmoid(held), tf.float32)
        return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=drawn, logits=rows), axis=1)
    noise = tf.random.stateless_normal(tf.shape(held), seeds)
    return tf.reduce_mean(tf.square(rows - held - noise), axis=1) / 2
