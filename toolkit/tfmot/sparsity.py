"""A model as tensorflow-model-optimization puts zeros into it: `prune_low_magnitude` around the chosen layers.

Page: tensorflow.org/model_optimization, "Pruning comprehensive guide". Its masks are chosen and laid on before a batch
goes through, and laid on again at the end of an epoch (UpdatePruningStep).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.engine.sparsity import Schedule, Sparsity
    from toolkit.engine.teaching import Teaching


class Task:
    """The wrapped model, and how to read its weights."""

    def __init__(self, old: Any, how: Teaching) -> None:
        import tf_keras
        from tensorflow_model_optimization.sparsity import keras as package

        if how.sparsity is None:
            raise ValueError("no zeros were asked for")
        chosen, options = set(how.sparsity.layers), arguments(how.sparsity)

        def wrapped(layer: Any) -> Any:
            return package.prune_low_magnitude(layer, **options) if layer.name in chosen else layer

        self.model = tf_keras.models.clone_model(old, clone_function=wrapped)
        self._old = old  # its layers are those inside the wrappers
        self._masks = package.UpdatePruningStep()
        self._masks.set_model(self.model)
        self._masks.on_train_begin()

    def learned(self) -> dict[str, Array]:
        """Arrays to hand back, "weight/LAYER/i", with their masks laid on: this is the end of an epoch."""
        self._masks.on_epoch_end(0)
        return {
            f"weight/{layer.name}/{index}": weight
            for layer in self._old.layers
            for index, weight in enumerate(layer.get_weights())
        }


def arguments(asked: Sparsity) -> Mapping[str, Any]:
    """What `prune_low_magnitude` is given. m_by_n counts zeros, which it chooses at step 1 whatever the schedule."""
    found: dict[str, Any] = {"pruning_schedule": _schedule(asked.schedule)}
    if asked.pattern.kind == "n:m":
        found["sparsity_m_by_n"] = (asked.pattern.m - asked.pattern.n, asked.pattern.m)
    elif asked.pattern.kind == "block":
        found["block_size"] = (asked.pattern.n, asked.pattern.m)
    return found


def _schedule(asked: Schedule | None) -> Any:
    from tensorflow_model_optimization.sparsity import keras as package

    if asked is None:
        raise ValueError("zeros that stay as they are have no schedule")
    if asked.curve == "constant" or asked.begin == asked.end:  # its polynomial divides by end - begin
        return package.ConstantSparsity(asked.sparsity, asked.begin, asked.end, asked.frequency)
    ends = asked.initial, asked.sparsity, asked.begin, asked.end
    return package.PolynomialDecay(*ends, power=asked.power, frequency=asked.frequency)
