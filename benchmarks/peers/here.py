"""The peers of this environment: TensorFlow's converter, ai-edge-quantizer, onnxruntime; and Edgekit itself."""

from __future__ import annotations

import subprocess
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.core import ExportContext, Model, PassContext
from toolkit.exporters.onnx import ONNX
from toolkit.exporters.quiet import quiet
from toolkit.exporters.tflite import TFLite
from toolkit.exporters.tflite_file import SIGNATURE_KEY

EDGEKIT = "Edgekit"
TUTORIAL_IMAGES = 100  # of calibration in "Post-training integer quantization" (ai.google.dev/edge/litert)


@dataclass(frozen=True)
class Given:
    """What every tool starts from: the model, its float files, and images (n, height, width, channels) to calibrate."""

    model: Model
    float_tflite: Path
    float_onnx: Path
    images: Any

    @property
    def input(self) -> str:
        return self.model.signature.inputs[0].name

    @property
    def head(self) -> str:
        return self.model.head


@dataclass(frozen=True)
class Peer:
    """A way to an int8 file. make: writes it to a path. ours: what its files are compared with is not itself."""

    name: str
    suffix: str
    make: Callable[[Given, Path], None]
    ours: bool = False


class Images:
    """Calibration images as a dataset (core.Dataset)."""

    task = "classes"
    classes: tuple[str, ...] = ()

    def __init__(self, name: str, images: Any) -> None:
        self._input, self._images = name, images
        self.name = self.fingerprint = f"{len(images)} calibration images"
        self.labels = np.zeros(len(images), np.int64)
        self.ids = tuple(f"image {number}" for number in range(len(images)))

    def __len__(self) -> int:
        return len(self._images)

    def batches(self, size: int) -> Iterator[Any]:
        from toolkit.core import Batch

        for start in range(0, len(self), size):
            rows = slice(start, start + size)
            yield Batch({self._input: self._images[rows]}, {"label": self.labels[rows]}, self.ids[rows])


def tensorflow(images: int) -> Callable[[Given, Path], None]:
    """TensorFlow's converter, its defaults (per-channel convolutions), on so many images at most."""

    def make(given: Given, path: Path) -> None:
        import tensorflow as tf

        from toolkit.engine.freeze import freeze

        shape = tuple(given.images[:1].shape)
        with quiet():
            converter = tf.lite.TFLiteConverter.from_concrete_functions([freeze(given.model.graph, [shape])])
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
            converter.representative_dataset = lambda: ([image[None]] for image in given.images[:images])
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            path.write_bytes(converter.convert())

    return make


def ai_edge_quantizer(given: Given, path: Path) -> None:
    """Its static recipe and its own calibration."""
    from ai_edge_quantizer import quantizer, recipe

    work = quantizer.Quantizer(str(given.float_tflite), recipe.static_wi8_ai8())
    examples = [{given.input: image[None]} for image in given.images]
    with quiet():
        found = work.calibrate({SIGNATURE_KEY: examples})
        path.write_bytes(bytes(work.quantize(found).quantized_model))


def onnxruntime(**options: Any) -> Callable[[Given, Path], None]:
    """quantize_static behind its own pre-processing; no options are its defaults."""

    def make(given: Given, path: Path) -> None:
        from onnxruntime import quantization
        from onnxruntime.quantization.shape_inference import quant_pre_process

        class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.left = iter(given.images)

            def get_next(self) -> dict[str, Any] | None:
                image = next(self.left, None)
                return None if image is None else {given.input: image[None]}

        kinds = {key: getattr(quantization.QuantType, value) for key, value in options.items() if key.endswith("type")}
        ready = path.with_suffix(".prepared.onnx")
        with quiet():
            quant_pre_process(str(given.float_onnx), str(ready), skip_symbolic_shape=True)  # that part needs sympy
            quantization.quantize_static(str(ready), str(path), Reader(), **{**options, **kinds})

    return make


def edgekit(exporter: Any, **options: Any) -> Callable[[Given, Path], None]:
    """`quantize` with these options, and an exporter."""

    def make(given: Given, path: Path) -> None:
        from toolkit.passes.quantize import Quantize

        data: Any = Images(given.input, given.images)
        context = PassContext(original=given.model, calibration=data)
        made = Quantize(**{"scheme": "int8", **options}).run(given.model, context).model
        exporter.export(made, path, ExportContext(calibration=data))

    return make


def ours(text: str) -> tuple[Peer, Peer]:
    """Edgekit once more, with these settings of `quantize` (TOML, several of them apart by `;`)."""
    settings = tomllib.loads(text.replace(";", "\n"))
    made = ((".tflite", TFLite()), (".onnx", ONNX(dynamic_batch=True)))
    one, two = (Peer(f"{EDGEKIT}, {text}", suffix, edgekit(exporter, **settings)) for suffix, exporter in made)
    return one, two


def elsewhere(name: str, python: Path) -> Peer:
    """A tool of another environment, by the script by_NAME.py beside this file."""
    script = Path(__file__).with_name(f"by_{name}.py")
    if not script.is_file():
        raise SystemExit(f"--peer {name}: there is no {script}. Fix: write one, as by_nncf.py is.")

    def make(given: Given, path: Path) -> None:
        images = path.with_suffix(".npz")
        np.savez(images, images=given.images, input=given.input)
        command = [str(python), str(script), str(given.float_onnx), str(images), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError((done.stderr.strip().splitlines() or ["no reason given"])[-1])

    return Peer(name, ".onnx", make)


PEERS: tuple[Peer, ...] = (
    Peer(f"TensorFlow, {TUTORIAL_IMAGES} images", ".tflite", tensorflow(TUTORIAL_IMAGES)),
    Peer("TensorFlow, all images", ".tflite", tensorflow(1_000_000)),
    Peer("ai-edge-quantizer", ".tflite", ai_edge_quantizer),
    Peer(EDGEKIT, ".tflite", edgekit(TFLite()), ours=True),
    Peer("onnxruntime, defaults", ".onnx", onnxruntime()),
    Peer("onnxruntime, per-channel", ".onnx", onnxruntime(per_channel=True, activation_type="QUInt8")),
    Peer(EDGEKIT, ".onnx", edgekit(ONNX(dynamic_batch=True)), ours=True),
    *ours('corrections = ["bias"]'),
)
