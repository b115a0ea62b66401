"""Masks of a training: weights at zero after every step of the optimizer, whatever moments it has kept of them.

Where masks are due to be chosen anew before the next batch, the weights are left as the optimizer made them, so that
one that is zero can come back; as in tensorflow-model-optimization, whose masks are laid on before a batch and at the
end of an epoch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from toolkit.engine.eligible import kernel_of
from toolkit.engine.sparsity import Sparsity, masks_for


class Masks:
    """Of the kernels of a graph that learns."""

    def __init__(self, graph: Any, how: Sparsity) -> None:
        self._how = how
        self._kernels = {name: kernel_of(graph.get_layer(name)) for name in (*how.layers, *how.held)}
        self._masks = {name: tf.Variable(self._start(name, kernel)) for name, kernel in self._kernels.items()}

    def _start(self, name: str, kernel: Any) -> Any:
        """Zeros that stay, or all of it until the schedule begins."""
        stays = self._how.schedule is None or name in self._how.held
        return np.asarray(kernel) != 0 if stays else np.ones(kernel.shape, bool)

    @property
    def variables(self) -> list[Any]:
        """What a checkpoint has to keep."""
        return list(self._masks.values())

    @property
    def settled(self) -> int:
        """The step from which masks stay; 0 where they always do."""
        return self._how.schedule.last if self._how.schedule else 0

    def is_due(self, step: int) -> bool:
        """Whether `choose` has something to do before this batch."""
        return self._how.schedule is not None and self._how.schedule.is_due(step)

    def choose(self, step: int) -> None:
        """New masks from the weights as they are, laid on."""
        if self._how.schedule is None:
            return
        weights = {name: np.asarray(self._kernels[name]) for name in self._how.layers}
        found = masks_for(weights, self._how.schedule.at(step), self._how.pattern, self._how.scope)
        for name, mask in found.items():
            self._masks[name].assign(mask)
            self._kernels[name].assign(np.where(mask, weights[name], 0))

    def lay_on(self, free: Any) -> None:
        """In the compiled step, behind the optimizer. free: a bool; True leaves the weights as they are."""
        for name, kernel in self._kernels.items():
            value = tf.convert_to_tensor(kernel)
            left = tf.logical_and(free, name not in self._how.held)
            kernel.assign(tf.where(tf.logical_or(self._masks[name], left), value, tf.zeros_like(value)))
