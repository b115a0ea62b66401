"""The first diverging layer on real models: the collapse of per-tensor weights has a name, sound files have none."""

from __future__ import annotations

import csv
import io
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from nets import Noise

from toolkit.checks.diagnosis import Diagnosis, diagnose
from toolkit.core import ExportContext, QuantSpec

if TYPE_CHECKING:
    from toolkit.core import Array

pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("EDGEKIT_DATA"), reason="set EDGEKIT_DATA to the folder of real models"),
]
CALIBRATE = 32


@dataclass(frozen=True)
class Images(Noise):
    """Prepared images as a dataset, under the model's own input name."""

    array: Any = field(default=None)
    spec: str = "image"

    @property
    def images(self) -> Array:
        return self.array  # type: ignore[no-any-return]

    def batches(self, size: int) -> Any:
        for batch in super().batches(size):
            yield replace(batch, inputs={self.spec: batch.inputs["image"]})


def decode(data: bytes) -> Array:
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), np.float32)


def imagenet(count: int) -> Array:
    folder = Path(os.environ["EDGEKIT_DATA"]) / "data" / "imagenet_sample300"
    with (folder / "labels.csv").open() as file:
        names = [row[next(iter(row))] for row in csv.DictReader(file) if row["role"] == "calib"]
    return np.stack([decode((folder / name).read_bytes()) for name in names[:count]]) / np.float32(127.5) - 1


def cifar(count: int) -> Array:
    with np.load(Path(os.environ["EDGEKIT_DATA"]) / "data" / "cifar10_jpeg_train50k.npz") as stored:
        jpeg, offsets = stored["jpeg"].tobytes(), stored["offsets"]
    return np.stack([decode(jpeg[offsets[i] : offsets[i + 1]]) for i in range(count)])


def written(name: str, images: Array, quant: QuantSpec, path: Path) -> Diagnosis:
    """The diagnosis of a real model's file, on the first images it was calibrated on."""
    from toolkit.exporters.onnx import ONNX
    from toolkit.exporters.tflite import TFLite
    from toolkit.sources.keras import Keras

    model = Keras().load(Path(os.environ["EDGEKIT_DATA"]) / "models" / f"{name}.keras")
    spec = model.signature.inputs[0].name
    asked = replace(model, quant=quant)
    exporter: Any = TFLite() if path.suffix == ".tflite" else ONNX(layout="NCHW")
    exporter.export(asked, path, ExportContext(Images(count=len(images), array=images, spec=spec)))
    return diagnose(path, asked, {spec: images[:4]}, sensitivity=False)


def test_collapse_of_per_tensor_weights_is_named_with_what_to_do(tmp_path: Path) -> None:
    """MobileNetV1's depthwise layers have channels a hundred times apart; what this file answers is worth nothing."""
    quant = QuantSpec("int8", granularity="per_tensor")
    found = written("mobilenet_v1_025_224_imagenet", imagenet(CALIBRATE), quant, tmp_path / "int8.onnx")
    assert found.first is not None
    assert found.faulty
    assert found.first.layer == "conv_dw_1"
    assert found.first.others >= 5
    assert 'granularity = "per_channel"' in found.advice


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("mobilenet_v1_025_224_imagenet", "float32"),
        ("mobilenet_v1_025_224_imagenet", "float16"),
        ("resnet20_cifar10_jpeg", "float32"),
        ("resnet20_cifar10_jpeg", "float16"),
        ("resnet20_cifar10_jpeg", "int8"),
    ],
)
def test_no_layer_of_sound_files_of_real_models_diverges(name: str, scheme: Any, suffix: str, tmp_path: Path) -> None:
    images = imagenet(CALIBRATE) if "imagenet" in name else cifar(CALIBRATE)
    found = written(name, images, QuantSpec(scheme), tmp_path / f"file{suffix}")
    assert found.first is None, found.diverging()


def test_uneven_channels_of_an_int8_file_that_loses_points_are_named(tmp_path: Path) -> None:
    """Per-channel weights, no corrections: it loses 4 points, and this layer 18 dB to what 8 bits have."""
    found = written("mobilenet_v1_025_224_imagenet", imagenet(CALIBRATE), QuantSpec("int8"), tmp_path / "int8.tflite")
    assert found.first is not None
    assert "conv_dw_3" in found.first.row.layers
    assert found.builds_up
