"""Quantize sets what exporters must write and leaves the network as it is."""

from __future__ import annotations

import keras
import pytest
from keras import layers
from pydantic import ValidationError

from toolkit.core import Model, PassContext, QuantSpec, Signature
from toolkit.errors import UnsupportedError
from toolkit.passes.quantize import Quantize


def net() -> Model:
    image = keras.Input((4, 4, 1))
    x = layers.Flatten()(layers.ReLU()(layers.Conv2D(2, 3, name="conv")(image)))
    return Model("keras", keras.Model(image, layers.Dense(2, name="head")(x)), Signature((), ()))


def test_quantize_sets_the_request_and_keeps_the_graph() -> None:
    model = net()
    result = Quantize(scheme="int8", granularity="per_tensor", io="int8").run(model, PassContext())
    assert result.model.graph is model.graph
    assert result.model.quant == QuantSpec("int8", "per_tensor", "int8")
    assert model.quant == QuantSpec()
    assert [(c.layer, c.after) for c in result.changes] == [
        ("conv", "int8 weights (per-tensor), int8 activations"),
        ("head", "int8 weights (per-tensor), int8 activations"),
    ]


@pytest.mark.parametrize(("scheme", "needs"), [("float16", ()), ("dynamic", ()), ("int8", ("calibration",))])
def test_only_int8_needs_calibration(scheme: str, needs: tuple[str, ...]) -> None:
    assert Quantize.model_validate({"scheme": scheme}).needs == needs


def test_integer_ends_need_integer_arithmetic() -> None:
    with pytest.raises(ValidationError, match="needs scheme 'int8'"):
        Quantize(scheme="float16", io="uint8")


def test_quantized_twice_and_nothing_to_quantize_are_refused() -> None:
    once = Quantize(scheme="float16").run(net(), PassContext()).model
    with pytest.raises(UnsupportedError, match="is float16 already"):
        Quantize(scheme="int8").run(once, PassContext())
    image = keras.Input((4,))
    with pytest.raises(UnsupportedError, match="has none of"):
        Quantize(scheme="int8").run(
            Model("keras", keras.Model(image, layers.ReLU()(image)), Signature((), ())), PassContext()
        )
