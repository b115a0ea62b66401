"""Knowledge distillation on logits (Hinton, Vinyals, Dean 2015, arXiv:1503.02531).

    loss = alpha T^2 KL(softmax(t / T) || softmax(s / T)) + (1 - alpha) CE(labels, softmax(s))

T^2 keeps the gradient's size the same for every temperature (section 2 there).
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

# Least probabilities whose logarithm is taken: the gradient, about 1 / LEAST, must stay within float32, and for sigmoid
# 1 - LEAST must differ from 1.
LEAST_SOFTMAX = 1e-30
LEAST_SIGMOID = 1e-7


def as_logits(outputs: Any, head: str) -> Any:
    """Two or more logits a row, from what a model gives: (n, classes), or (n, 1) for two classes.

    softmax: log p, which is the logits up to a constant of the row, to which softmax is blind; exact but for p below
    1e-30. sigmoid: [0, log(p / (1 - p))], within 16 of 0. One column of logits z: [0, z].
    """
    outputs = tf.reshape(outputs, (tf.shape(outputs)[0], -1))
    if head == "softmax":
        return tf.math.log(tf.maximum(outputs, LEAST_SOFTMAX))
    if head == "sigmoid":
        held = tf.clip_by_value(outputs, LEAST_SIGMOID, 1 - LEAST_SIGMOID)
        outputs = tf.math.log(held) - tf.math.log1p(-held)
    if outputs.shape[-1] == 1:
        return tf.concat([tf.zeros_like(outputs), outputs], axis=1)
    return outputs


def distillation(student: Any, teacher: Any, labels: Any, *, temperature: float, alpha: float) -> Any:
    """Mean loss over the batch. student, teacher: (n, classes) logits; labels: (n,) class indexes."""
    hard = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=student)
    if alpha == 0:
        return tf.reduce_mean(hard)
    target = tf.nn.softmax(teacher / temperature)
    distance = tf.nn.log_softmax(teacher / temperature) - tf.nn.log_softmax(student / temperature)
    soft = tf.reduce_sum(target * distance, axis=1)
    return tf.reduce_mean(alpha * temperature**2 * soft + (1 - alpha) * hard)
