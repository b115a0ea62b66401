"""One cut over all groups that leaves a group very narrow says so."""

from __future__ import annotations

from typing import Any

import keras
from keras import layers

from toolkit.core import Model, PassContext, Signature, TensorSpec
from toolkit.passes.prune import Prune


def faint() -> Model:
    """Groups of 32, 64, 64 and 4 channels; all that makes and reads those of b is nearly nothing."""
    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 1), name="image")
    for filters, name in ((32, "a"), (64, "b"), (64, "c"), (4, "tiny")):
        x = layers.Conv2D(filters, 3, padding="same", activation="relu", name=name)(x)
    x = layers.GlobalAveragePooling2D()(x)
    graph = keras.Model(image, layers.Dense(10, activation="softmax", name="probs")(x))
    for name in ("b", "c"):
        layer = graph.get_layer(name)
        layer.set_weights([weight / 1000 for weight in layer.get_weights()])
    ends = (
        TensorSpec("image", (None, 8, 8, 1), "float32", "image"),
        TensorSpec("probs", (None, 10), "float32", "softmax"),
    )
    return Model("keras", graph, Signature(ends[:1], ends[1:]))


def test_group_that_one_cut_leaves_very_narrow_is_named() -> None:
    model = faint()

    def told(**options: Any) -> list[str]:
        said: list[str] = []
        context = PassContext(emit=lambda progress: said.append(progress.text))
        Prune(macs=0.165, normalization="none", **options).run(model, context)
        return [line for line in said if line.startswith("warning")]

    (line,) = told(ranking="global")
    assert line.startswith("warning: prune: b keeps 8 of 64 channels; ") and "min_share" in line
    assert not told(ranking="global", min_share=0.25)
    assert not told(ranking="local")
