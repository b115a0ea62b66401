from __future__ import annotations

from typing import Any

import keras
import pytest
from keras import layers

from toolkit.engine.cost import LayerCost, cost
from toolkit.errors import InputError

# on 6 x 6 pixels of 8 channels: layer, its parameters, its MACs
CASES: list[tuple[Any, int, int]] = [
    (layers.Conv2D(4, 3, padding="same"), 3 * 3 * 8 * 4 + 4, 3 * 3 * 8 * 4 * 36),
    (layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False), 288, 288 * 9),
    (layers.Conv2D(4, (3, 1), dilation_rate=(2, 1)), 3 * 8 * 4 + 4, 3 * 8 * 4 * 2 * 6),
    (layers.Conv2D(4, 3, groups=2), 3 * 3 * 4 * 4 + 4, 3 * 3 * 4 * 4 * 16),
    (layers.DepthwiseConv2D(3, depth_multiplier=2), 3 * 3 * 16 + 16, 3 * 3 * 16 * 16),
    (layers.SeparableConv2D(4, 3, depth_multiplier=2), 3 * 3 * 16 + 16 * 4 + 4, (3 * 3 * 16 + 16 * 4) * 16),
    (layers.Conv2DTranspose(4, 2, strides=2), 2 * 2 * 8 * 4 + 4, 2 * 2 * 8 * 4 * 36),  # each input pixel, once
    (layers.Dense(4), 8 * 4 + 4, 8 * 4 * 36),
    (layers.BatchNormalization(), 4 * 8, 0),
    (layers.GlobalAveragePooling2D(), 0, 0),
]


@pytest.mark.parametrize(("layer", "parameters", "macs"), CASES, ids=lambda case: getattr(case, "name", ""))
def test_cost_is_what_is_worked_out_by_hand(layer: Any, parameters: int, macs: int) -> None:
    image = keras.Input((6, 6, 8))
    found = cost(keras.Model(image, layer(image)))
    assert found.layers[-1] == LayerCost(layer.name, parameters, macs)
    assert (found.parameters, found.macs) == (parameters, macs)


def test_cost_is_what_the_mobilenet_paper_gives() -> None:
    model = keras.applications.MobileNet((224, 224, 3), alpha=0.25, weights=None)
    found = cost(model)
    assert round(found.macs / 1e6) == 41 and round(found.parameters / 1e6, 1) == 0.5  # arXiv:1704.04861, table 6
    assert found.parameters == model.count_params()


def test_cost_raises_when_the_shape_is_open() -> None:
    image = keras.Input((None, 6, 3))
    model = keras.Model(image, layers.Conv2D(4, 3, name="conv")(image))
    with pytest.raises(InputError, match="conv: MACs cannot be counted"):
        cost(model)
