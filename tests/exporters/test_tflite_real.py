"""Real networks as int8 by ranges of our own: the converter's operators, its size, and its decisions."""

from __future__ import annotations

import io
import os
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from toolkit.core import Batch, ExportContext, QuantSpec, Statistics
from toolkit.exporters import tflite_file
from toolkit.exporters.tflite import TFLite

if TYPE_CHECKING:
    from collections.abc import Iterator

    from toolkit.core import Array

DATA = os.environ.get("EDGEKIT_DATA", "")
pytestmark = [pytest.mark.data, pytest.mark.skipif(not DATA, reason="EDGEKIT_DATA is not set")]


@dataclass(frozen=True)
class Images:
    """Images in memory as a calibration split."""

    input: str
    pixels: Array
    name: str = "images"
    fingerprint: str = "0"
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)

    def batches(self, size: int) -> Iterator[Batch]:
        for start in range(0, len(self), size):
            part = self.pixels[start : start + size]
            yield Batch({self.input: part}, {}, tuple(str(start + i) for i in range(len(part))))


def cifar(file: str, count: int) -> tuple[Array, Array]:
    from PIL import Image

    stored = np.load(Path(DATA) / "data" / file)
    content, ends = stored["jpeg"], stored["offsets"]
    images = [Image.open(io.BytesIO(content[ends[i] : ends[i + 1]].tobytes())) for i in range(count)]
    return np.stack([np.asarray(image) for image in images]).astype(np.float32), stored["labels"][:count]


def decisions(path: Path, images: Array) -> Array:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(path), num_threads=1)
    interpreter.allocate_tensors()
    (given,), (result,) = interpreter.get_input_details(), interpreter.get_output_details()
    found = []
    for image in images:
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        found.append(int(interpreter.get_tensor(result["index"]).argmax()))
    return np.array(found)


@pytest.mark.parametrize(
    "name",
    ["resnet8_cifar10_jpeg", "resnet20_cifar10_jpeg", pytest.param("mnv2_cifar10_96", marks=pytest.mark.slow)],
)
def test_int8_is_the_converters_equal(name: str, tmp_path: Path) -> None:
    from toolkit.engine.calibrate import calibrate
    from toolkit.engine.prepare import prepare
    from toolkit.sources.keras import Keras

    model = Keras().load(Path(DATA) / "models" / f"{name}.keras")
    (spec,) = model.signature.inputs
    sample = Images(spec.name, cifar("cifar10_jpeg_train50k.npz", 100)[0])
    found = calibrate(prepare(model.graph).graph, (batch.inputs for batch in sample.batches(20)))
    ranged = replace(model, quant=QuantSpec("int8"), statistics=Statistics(found.ranges("minmax"), found.images))
    context = ExportContext(sample)  # type: ignore[arg-type]
    ours = TFLite().export(ranged, tmp_path / "ours.tflite", context)
    theirs = TFLite().export(replace(model, quant=QuantSpec("int8")), tmp_path / "theirs.tflite", context)
    kinds = [Counter(op.kind for op in tflite_file.read(made.path).operators) for made in (ours, theirs)]
    pooled = kinds[1]["AVERAGE_POOL_2D"]  # over the whole image in these: a mean with a scale of its own
    scaled = kinds[1]["MUL"] - kinds[0]["MUL"]  # a scaling by channels: one convolution for the converter's two
    more = Counter(AVERAGE_POOL_2D=pooled, MUL=scaled, ADD=scaled)
    assert kinds[0] + more == kinds[1] + Counter(MEAN=pooled, DEPTHWISE_CONV_2D=scaled)
    assert ours.size_bytes <= theirs.size_bytes
    images, labels = cifar("cifar10_jpeg_test10k.npz", 500)
    right = [np.mean(decisions(made.path, images) == labels) for made in (ours, theirs)]
    assert right[0] >= right[1] - 0.012  # 6 of 500 images: what two calibrations differ by
