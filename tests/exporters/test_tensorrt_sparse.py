"""2:4 zeros of a Keras model in TensorRT's files: along the axis it asks for, behind Q/DQ and in float16."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tensorrt_rtx_build import build
from toolkit.checks.zeros import zeros_of
from toolkit.core import ExportContext, Model, QuantSpec, Signature, TensorSpec
from toolkit.engine.sparsity import ONCE, Pattern, Sparsity, sparsified
from toolkit.exporters import onnx_file
from toolkit.exporters.tensorrt import TensorRT
from toolkit.exporters.tflite import TFLite

keras = pytest.importorskip("keras")
L = keras.layers
HALVED = ("second", "third", "classes")


@pytest.fixture(scope="module")
def model() -> Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 6, 3), name="image")
    x = L.Conv2D(16, 3, padding="same", use_bias=False, name="first")(image)
    x = L.ReLU(name="relu")(L.BatchNormalization(name="norm")(x))
    x = L.Conv2D(16, 3, padding="same", activation="relu", name="second")(x)
    x = L.DepthwiseConv2D(3, padding="same", name="each")(x)
    x = L.Conv2D(32, 1, activation="relu", name="third")(x)
    x = L.Dense(8, name="classes")(L.GlobalAveragePooling2D(name="gap")(x))
    graph = sparsified(keras.Model(image, x), Sparsity(HALVED, Pattern.parse("2:4"), ONCE), 0.5)
    ends = TensorSpec("image", (None, 8, 6, 3), "float32", "image", "NHWC"), TensorSpec("scores", (None, 8), "float32")
    return Model("keras", graph, Signature((ends[0],), (replace(ends[1], meaning="logits"),)))


@pytest.mark.parametrize(
    ("scheme", "rest"), [("float32", None), ("float16", None), ("int8", "float32"), ("int8", "float16")]
)
def test_two_of_four_is_kept_through_to_tensorrt(
    model: Model, images: Callable[..., Any], tmp_path: Path, scheme: Any, rest: Any
) -> None:
    flavour = "symmetric" if scheme == "int8" else "asymmetric"
    asked = replace(model, quant=QuantSpec(scheme=scheme, flavour=flavour))  # type: ignore[arg-type]
    path = tmp_path / "m.onnx"
    TensorRT(rest=rest).export(asked, path, ExportContext(images(model)))
    found = zeros_of(path)
    assert (found.two_of_four, found.layers) == (len(HALVED), 5)
    file = onnx_file.read(path)
    kernel = next(array for name in file.constants if (array := file.values(name)).shape == (16, 16, 3, 3))  # type: ignore[union-attr]
    groups = kernel.transpose(0, 2, 3, 1).reshape(-1, 4)  # for each output and place, four input channels
    assert (np.count_nonzero(groups, axis=1) == 2).all()


def test_rtx_builds_the_int8_file(model: Model, images: Callable[..., Any], tmp_path: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    asked = replace(model, quant=QuantSpec(scheme="int8", flavour="symmetric"))
    TensorRT().export(asked, tmp_path / "m.onnx", ExportContext(images(model)))
    built = build((tmp_path / "m.onnx").read_bytes())
    assert not built.problems
    assert built.int8_convolutions >= 2


def test_two_of_four_stands_along_input_channels_of_tflite_files_too(
    model: Model, images: Callable[..., Any], tmp_path: Path
) -> None:
    for scheme in ("float32", "int8"):
        path = tmp_path / f"{scheme}.tflite"
        TFLite().export(replace(model, quant=QuantSpec(scheme=scheme)), path, ExportContext(images(model)))  # type: ignore[arg-type]
        assert (zeros_of(path).two_of_four, zeros_of(path).layers) == (len(HALVED), 5)
