"""What the tests of surgery share: random weights and images, and how far two models' outputs are apart."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np

from toolkit.engine.batchnorm import reestimate_batchnorm
from toolkit.engine.groups import find_groups

TOLERANCE = 1e-5  # of the largest output
PIXELS = 100.0  # about the spread of pixel values, for networks that rescale them themselves


def randomize(model: Any, seed: int = 0) -> Any:
    """Every weight random, so that no gamma of 1 or mean of 0 hides a slice cut at the wrong place."""
    rng = np.random.default_rng(seed)
    for layer in model.layers:
        for weight in layer.weights:
            values = rng.normal(size=weight.shape)
            if weight.name.endswith("variance"):
                values = 0.5 + np.abs(values)
            elif weight.name.endswith("kernel"):
                values *= np.sqrt(2 / max(1, np.prod(weight.shape[:-1])))
            weight.assign(values.astype("float32"))
    return model


def lively(model: Any) -> Any:
    """Random weights with fitting statistics: a deep network whose output still depends on the image."""
    return reestimate_batchnorm(randomize(model), [images(model, seed=2, count=16, scale=PIXELS)])


def images(model: Any, seed: int = 1, count: int = 3, scale: float = 1.0) -> list[Any]:
    rng = np.random.default_rng(seed)
    return [rng.normal(scale=scale, size=(count, *tensor.shape[1:])).astype("float32") for tensor in model.inputs]


def outputs(model: Any, inputs: list[Any]) -> list[Any]:
    found = model(keras.tree.pack_sequence_as(model.input, inputs), training=False)
    return [np.asarray(value) for value in keras.tree.flatten(found)]


def difference(first: list[Any], second: list[Any]) -> float:
    return max(float(np.abs(a - b).max() / np.abs(a).max()) for a, b in zip(first, second, strict=True))


def random_removals(model: Any, seed: int, most: float = 1.0) -> dict[str, list[int]]:
    """Of each free group one channel up to the share `most`, at least one left."""
    rng = np.random.default_rng(seed)
    free = [group for group in find_groups(model) if not group.frozen and group.size > 1]
    counts = [rng.integers(1, max(2, round(most * group.size))) for group in free]
    return {g.id: rng.choice(g.size, count, replace=False).tolist() for g, count in zip(free, counts, strict=True)}
