"""Real files that are no Keras graph reach the accuracy written beside them, and keep it when quantized."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from toolkit import pipeline

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not os.environ.get("EDGEKIT_DATA"), reason="EDGEKIT_DATA is not set"),
]

IMAGES = 1000
RECIPE = """
schema = 1
[model]
source = "MODEL"
[data]
path = "DATA/data/cifar10_jpeg_train50k.npz"
preprocess = "HOW"
[data.held_out]
path = "DATA/data/cifar10_jpeg_test10k.npz"
[data.splits]
calibration = 200
test = IMAGES
[[variants]]
name = "float16"
passes = [{ use = "quantize", scheme = "float16" }]
export = ["EXPORT"]
[[variants]]
name = "int8"
passes = [{ use = "quantize", scheme = "int8" }]
export = ["EXPORT"]
[budget]
max_accuracy_drop = 0.03
[measure]
processes = 0
"""


def carried_out(folder: Path, model: str, how: str, export: str) -> Any:
    data = os.environ["EDGEKIT_DATA"]
    text = RECIPE.replace("MODEL", model).replace("DATA", data).replace("HOW", how).replace("EXPORT", export)
    (folder / "r.toml").write_text(text.replace("IMAGES", str(IMAGES)))
    return pipeline.run(folder / "r.toml", out=folder / "run").manifest


def number(manifest: Any, subject: str, name: str) -> Any:
    return next(m for m in manifest.measurements if (m.subject, m.name) == (subject, name))


@pytest.mark.parametrize("exporter", ["torch", "torch_dynamo"])
def test_pytorch_export_is_quantized_and_checked(exporter: str, tmp_path: Path) -> None:
    model = f"DATA/models/onnx/resnet20_cifar10_{exporter}.onnx"
    manifest = carried_out(tmp_path, model.replace("DATA", os.environ["EDGEKIT_DATA"]), "imagenet", "onnx")
    span = number(manifest, "original", "top1").interval
    assert span.low < 0.810 < span.high  # of the 10,000, as the data's README has it
    # He et al. 2015 (arXiv:1512.03385), table 6: 0.27 million parameters; 41 million MACs, counted by hand
    assert (number(manifest, "original", "parameters").value, number(manifest, "original", "macs").value) == (
        269_034,
        27 * 16 * 1024 + 6 * 2304 * 1024 + (4608 + 5 * 9216) * 256 + (18432 + 5 * 36864) * 64 + 640,
    )
    assert manifest.outcome == "PASS"
    assert number(manifest, "int8.onnx", "agreement").value > 0.96
    assert number(manifest, "float16.onnx", "agreement").value > 0.99


def test_float_tflite_is_quantized_with_a_small_loss(tmp_path: Path) -> None:
    from toolkit.core import ExportContext
    from toolkit.exporters.tflite import TFLite
    from toolkit.sources.keras import Keras

    model = Keras().load(Path(os.environ["EDGEKIT_DATA"]) / "models" / "resnet8_cifar10_jpeg.keras")
    TFLite().export(model, tmp_path / "resnet8.tflite", ExportContext())
    manifest = carried_out(tmp_path, str(tmp_path / "resnet8.tflite"), "raw", "tflite")
    span = number(manifest, "original", "top1").interval
    assert span.low < 0.841 < span.high
    assert manifest.outcome == "PASS"
    assert number(manifest, "int8.tflite", "agreement").value > 0.95
