"""Advice on one file goes by what its format and its own request make of each layer."""

from __future__ import annotations

from typing import Any

import pytest
from nets import Noise, Written

from toolkit.checks.diagnosis import Diagnosis, diagnose
from toolkit.core import Model, QuantSpec, Signature, TensorSpec

IMAGES = {"image": Noise().images[:4]}
SIGNATURE = Signature(
    (TensorSpec("image", (None, 16, 16, 3), "float32", "image", "NHWC"),),
    (TensorSpec("head", (None, 10), "float32", "probabilities"),),
)


def of(net: Written, suffix: str, **asked: Any) -> Diagnosis:
    model = Model("keras", net.graph, SIGNATURE, quant=QuantSpec("int8", **asked))
    return diagnose(net.tflite if suffix == ".tflite" else net.onnx, model, IMAGES)


def layers_of(found: Diagnosis) -> set[str]:
    return {row.layer for row in found.sensitive}


@pytest.fixture(scope="module")
def both(written: dict[str, Written]) -> dict[str, Any]:
    return {suffix: of(written["mobile"], suffix) for suffix in (".tflite", ".onnx")}


def test_softmax_wins_nothing_back_in_onnx_where_it_is_float(both: dict[str, Any]) -> None:
    assert layers_of(both[".tflite"]) - layers_of(both[".onnx"]) == {"head_softmax"}
    assert layers_of(both[".onnx"]) < layers_of(both[".tflite"])


def test_16_bits_are_advised_only_where_a_file_can_have_them(both: dict[str, Any]) -> None:
    assert both[".tflite"].advice.endswith('layers = { head = "float32" or "int16x8" }')
    assert both[".onnx"].advice.endswith('layers = { head = "float32" }')


def test_layers_of_another_scheme_have_no_row(written: dict[str, Written], both: dict[str, Any]) -> None:
    found = of(written["mobile"], ".tflite", layers=(("stem", "float32"),))
    assert layers_of(both[".tflite"]) - layers_of(found) == {"stem"}
