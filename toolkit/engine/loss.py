"""What training makes small: one loss for each kind of head, from labels, from a teacher, or from both.

    decisions    CE(labels, softmax(s)),            T^2 KL(softmax(t / T) || softmax(s / T))
    labels       mean over labels of binary CE,     T^2 mean over labels of KL between Bernoulli(sigmoid(. / T))
    regression   mean squared or absolute error,    mean squared error to the teacher
    embedding    -                                  1 - cosine, or mean squared error, to the teacher

    loss = alpha * the teacher's + (1 - alpha) * the labels'

Instead of KL the teacher's may be the mean squared difference of logits (Kim et al. 2021, arXiv:2105.08919), of
decisions about the mean of their row: softmax is blind to a constant, and a teacher that gives probabilities has none.

The decisions' teacher is that of Hinton, Vinyals, Dean 2015 (arXiv:1503.02531): T^2 keeps the gradient's size the same
for every temperature (section 2 there). Label smoothing is Szegedy et al. 2015 (arXiv:1512.00567, section 7).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

# Least probabilities whose logarithm is taken: the gradient, about 1 / LEAST, must stay within float32, and for sigmoid
# 1 - LEAST must differ from 1.
LEAST_SOFTMAX = 1e-30
LEAST_SIGMOID = 1e-7
DECISIONS = ("logits", "softmax", "sigmoid")  # heads that choose one class
RAW_LABELS = "label_logits"  # several sigmoids whose activation was dropped for training
LABELS = ("sigmoids", RAW_LABELS)
NO_CLASS = -(2**31)  # in place of a class index, where none is known; no slip of an index by one makes it


@dataclass(frozen=True)
class Target:
    """What is asked of the outputs.

    divergence: between teacher and student, where they give logits: "kl", or "mse" without a temperature.
    smoothing: share of a label's certainty given to all classes alike. class_weights: one for each class (of each
    label, for several labels), () for equal ones. errors: of a regression, "squared" or "absolute". closeness: of
    embeddings, "cosine" or "squared". partly: some images have no label (see `labelled`).
    """

    temperature: float = 4.0
    alpha: float = 0.8
    smoothing: float = 0.0
    class_weights: tuple[float, ...] = ()
    errors: str = "squared"
    closeness: str = "cosine"
    divergence: str = "kl"
    partly: bool = False


def total(student: Any, teacher: Any, labels: Any, *, head: str, target: Target) -> Any:
    """Mean loss over the batch, of `parts`."""
    return tf.add_n(list(parts(student, teacher, labels, head=head, target=target).values()))


def parts(student: Any, teacher: Any, labels: Any, *, head: str, target: Target) -> dict[str, Any]:
    """Mean losses over the batch that add up to the whole, with their weights: the teacher's, and the labels'.

    student, teacher: what `raw` gives; the teacher is not looked at where alpha is 0, the labels where it is 1.
    """
    found = {}
    if target.alpha > 0:
        found["teacher"] = target.alpha * tf.reduce_mean(from_teacher(student, teacher, head, target))
    if target.alpha < 1:
        found["labels"] = (1 - target.alpha) * _mean_from_labels(student, labels, head, target)
    return found


def labelled(labels: NDArray[Any]) -> NDArray[np.bool_]:
    """Which images have a label: a class other than NO_CLASS, or values of which none is NaN."""
    missing: NDArray[Any] = np.asarray(labels == NO_CLASS if labels.dtype.kind in "iu" else np.isnan(labels))
    return np.asarray(~missing.reshape(len(labels), -1).any(axis=1))


def _mean_from_labels(student: Any, labels: Any, head: str, target: Target) -> Any:
    """Mean over the images that have a label, so that alpha is what it says; 0 for a batch without any."""
    if not target.partly:
        return tf.reduce_mean(from_labels(student, labels, head, target))
    missing = labels == NO_CLASS if labels.dtype.is_integer else tf.math.is_nan(labels)
    known = tf.logical_not(tf.reduce_any(tf.reshape(missing, (tf.shape(labels)[0], -1)), axis=1))
    each = from_labels(student, tf.where(missing, tf.zeros_like(labels), labels), head, target)
    count = tf.reduce_sum(tf.cast(known, tf.float32))
    return tf.math.divide_no_nan(tf.reduce_sum(tf.where(known, each, tf.zeros_like(each))), count)


def from_labels(student: Any, labels: Any, head: str, target: Target) -> Any:
    """Loss of each image, (n,)."""
    weights = tf.constant(target.class_weights, tf.float32) if target.class_weights else None
    if head in DECISIONS:
        hard = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=student)
        if target.smoothing:
            evenly = -tf.reduce_mean(tf.nn.log_softmax(student), axis=1)
            hard = (1 - target.smoothing) * hard + target.smoothing * evenly
        return hard if weights is None else hard * tf.gather(weights, labels)
    wanted = tf.cast(labels, tf.float32)
    if head in LABELS:
        wanted = wanted * (1 - target.smoothing) + target.smoothing / 2
        each = tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=student)
        return tf.reduce_mean(each if weights is None else each * weights, axis=1)
    if head == "regression":
        apart = student - tf.reshape(wanted, tf.shape(student))
        return tf.reduce_mean(tf.abs(apart) if target.errors == "absolute" else tf.square(apart), axis=1)
    raise ValueError(f"no loss from labels for head {head!r}")


def from_teacher(student: Any, teacher: Any, head: str, target: Target) -> Any:
    """Loss of each image, (n,)."""
    heat = target.temperature
    if target.divergence == "mse" and head in DECISIONS:
        student, teacher = _centred(student), _centred(teacher)
    elif head in DECISIONS:
        distance = tf.nn.log_softmax(teacher / heat) - tf.nn.log_softmax(student / heat)
        return heat**2 * tf.reduce_sum(tf.nn.softmax(teacher / heat) * distance, axis=1)
    elif target.divergence == "kl" and head in LABELS:
        wanted = tf.sigmoid(teacher / heat)
        cross = tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=student / heat)
        own = tf.nn.sigmoid_cross_entropy_with_logits(labels=wanted, logits=teacher / heat)
        return heat**2 * tf.reduce_mean(cross - own, axis=1)
    elif head == "embedding" and target.closeness == "cosine":
        cosine = tf.reduce_sum(tf.math.l2_normalize(student, axis=1) * tf.math.l2_normalize(teacher, axis=1), axis=1)
        return 1 - cosine
    return tf.reduce_mean(tf.square(student - teacher), axis=1)


def agreed(teachers: Sequence[Any], weights: Sequence[float], head: str, target: Target) -> Any:
    """One teacher's rows in place of several's, whose gradient is that of the weighted sum of their losses.

    For KL that is the mean of the softened probabilities, for squared errors the mean of what they are taken of: the
    sum of losses differs from the loss to the mean by a number that no student changes. (Of embeddings by direction,
    the mean direction; the gradient's size then is that of one teacher.) weights: of sum 1.
    """
    shares = tf.constant(weights, tf.float32)[:, None, None]
    heat = target.temperature
    if head in DECISIONS and target.divergence == "kl":
        logs = tf.stack([tf.nn.log_softmax(rows / heat) for rows in teachers])
        return heat * tf.reduce_logsumexp(logs + tf.math.log(shares), axis=0)
    if head in LABELS and target.divergence == "kl":
        rows = tf.stack(list(teachers)) / heat
        sides = (tf.math.log_sigmoid(rows), tf.math.log_sigmoid(-rows))
        on, off = (tf.reduce_logsumexp(side + tf.math.log(shares), axis=0) for side in sides)
        return heat * (on - off)
    if head in DECISIONS:
        teachers = [_centred(rows) for rows in teachers]
    elif head == "embedding" and target.closeness == "cosine":
        teachers = [tf.math.l2_normalize(rows, axis=1) for rows in teachers]
    return tf.reduce_sum(tf.stack(list(teachers)) * shares, axis=0)


def _centred(rows: Any) -> Any:
    return rows - tf.reduce_mean(rows, axis=1, keepdims=True)


def raw(outputs: Any, head: str) -> Any:
    """Rows to compute losses from: logits for decisions (`as_logits`) and labels, else the outputs; float32."""
    outputs = tf.cast(outputs, tf.float32)
    if head in DECISIONS:
        return as_logits(outputs, head)
    outputs = tf.reshape(outputs, (tf.shape(outputs)[0], -1))
    return _unsigmoid(outputs) if head == "sigmoids" else outputs


def as_logits(outputs: Any, head: str) -> Any:
    """Two or more logits a row, from what a model gives: (n, classes), or (n, 1) for two classes.

    softmax: log p, which is the logits up to a constant of the row, to which softmax is blind; exact but for p below
    1e-30. sigmoid: [0, log(p / (1 - p))], within 16 of 0. One column of logits z: [0, z].
    """
    outputs = tf.reshape(outputs, (tf.shape(outputs)[0], -1))
    if head == "softmax":
        return tf.math.log(tf.maximum(outputs, LEAST_SOFTMAX))
    if head == "sigmoid":
        outputs = _unsigmoid(outputs)
    if outputs.shape[-1] == 1:
        return tf.concat([tf.zeros_like(outputs), outputs], axis=1)
    return outputs


def _unsigmoid(outputs: Any) -> Any:
    held = tf.clip_by_value(outputs, LEAST_SIGMOID, 1 - LEAST_SIGMOID)
    return tf.math.log(held) - tf.math.log1p(-held)


def balanced(labels: NDArray[Any], classes: int) -> tuple[float, ...]:
    """Weights that give every class the same say: images / (classes * images of the class); 0 for a class without any.

    King and Zeng 2001, "Logistic regression in rare events data", as scikit-learn's "balanced".
    """
    counts = np.bincount(labels, minlength=classes)
    return tuple(len(labels) / (classes * int(count)) if count else 0.0 for count in counts)
