"""The program beside a delivered file decides as the worker did, on image files, for layouts and types that differ."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.core import ExportContext, Preprocessing, QuantSpec
from toolkit.sample_code import sample_code


def decisions(program: Path, images: list[Path]) -> list[str]:
    """What the program prints for each image."""
    command = [sys.executable, program.name, *map(str, images)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=program.parent)
    return [line.rsplit(" ", 1)[1] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", ["int8.tflite", "int8.onnx"])
def test_program_of_a_run_decides_as_the_worker_did(finished: Any, judged: Any, tmp_path: Path, name: str) -> None:
    from PIL import Image

    images, _ = judged
    paths = [tmp_path / f"{i}.png" for i in range(20)]
    for path, image in zip(paths, images, strict=False):
        Image.fromarray(np.round(image[:, :, 0] * 16).astype(np.uint8)).save(path)
    with np.load(finished.folder / "samples" / f"{name}@this-machine.answers.npz") as answers:
        expected = [str(np.argmax(row)) for row in answers["classes"][:20]]
    assert decisions(finished.folder / "artifacts" / f"{name}.py", paths) == expected


@pytest.mark.parametrize(
    ("exporter", "options", "quant"),
    [
        ("onnx", {"layout": "NCHW"}, QuantSpec()),
        ("tflite", {}, QuantSpec("int8", io="uint8")),
        ("tflite", {}, QuantSpec("int8", io="int8")),
    ],
)
def test_program_follows_layout_size_color_and_integer_ends(
    tmp_path: Path, exporter: str, options: dict[str, Any], quant: QuantSpec
) -> None:
    """The class is the brightest quarter and channel of a picture that is neither square nor symmetric."""
    import keras
    from keras import layers
    from PIL import Image

    from toolkit import registry
    from toolkit.core import Model, Signature, TensorSpec

    image = keras.Input((4, 6, 3), name="image")
    kernel = np.zeros((72, 3), np.float32)
    for row, column, channel, label in ((0, 5, 0, 0), (3, 0, 2, 1), (1, 2, 1, 2)):
        kernel[(row * 6 + column) * 3 + channel, label] = 1.0
    dense = layers.Dense(3, name="y")
    graph = keras.Model(image, dense(layers.Flatten()(image)))
    dense.set_weights([kernel, np.zeros(3, np.float32)])
    contract = Preprocessing(size=(4, 6), color="bgr", scale=(1 / 255,), offset=(-0.25,))
    specs = (TensorSpec("image", (None, 4, 6, 3), "float32", "image", "NHWC"),)
    signature = Signature(specs, (TensorSpec("y", (None, 3), "float32", "logits"),))
    model = Model("keras", graph, signature, contract, quant)
    path = tmp_path / f"m.{exporter}"
    artifact = registry.load("exporters", exporter)(**options).export(model, path, ExportContext(Ramp()))
    program = tmp_path / "m.py"
    program.write_text(sample_code(replace(artifact, name=path.name), contract, ("right", "left", "middle")))
    # bgr: the model's channel 0 is blue. A bright blue corner is class 0, a bright red corner class 1
    paths = []
    for name, (row, column, color) in {"a": (0, 5, 2), "b": (3, 0, 0), "c": (1, 2, 1)}.items():
        pixels = np.zeros((4, 6, 3), np.uint8)
        pixels[row, column, color] = 255
        paths.append(tmp_path / f"{name}.png")
        Image.fromarray(pixels).save(paths[-1])
    assert decisions(program, paths) == ["right", "left", "middle"]


class Ramp:
    """Calibration images that span the input's range."""

    name, fingerprint, classes, labels = "ramp", "", ("a",), np.zeros(8, np.int64)

    def __len__(self) -> int:
        return 8

    def batches(self, size: int) -> Any:
        from toolkit.core import Batch

        for i in range(8):
            yield Batch({"image": np.full((1, 4, 6, 3), -0.25 + i / 7, np.float32)}, {}, (str(i),))
