"""The peers of this environment: TensorFlow's converter, ai-edge-quantizer, onnxruntime; and Edgekit itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.core import ExportContext, Model, PassContext
from toolkit.exporters.onnx import ONNX
from toolkit.exporters.quiet import quiet
from toolkit.exporters.tflite import TFLite
from toolkit.exporters.tflite_file import SIGNATURE_KEY
from toolkit.recipe_reader import load_recipe

EDGEKIT = "Edgekit"
RECIPE = "post-training-int8"  # what Edgekit's own row is made by
PACKAGES = {  # of the scripts by_NAME.py
    "nncf": "nncf",
    "inc": "onnx-neural-compressor",
    "quark": "amd-quark",
    "aimet": "aimet-onnx",
    "modelopt": "nvidia-modelopt",
}
TUTORIAL_IMAGES = 100  # of calibration in "Post-training integer quantization" (ai.google.dev/edge/litert)


@dataclass(frozen=True)
class Given:
    """What every tool starts from: the model, its float files, and images (n, height, width, channels) to calibrate.

    passed: models that `quantize` has made, with its seconds, by settings; files of two formats need it once.
    """

    model: Model
    float_tflite: Path
    float_onnx: Path
    images: Any
    passed: dict[str, tuple[Model, float]] = field(default_factory=dict, compare=False)

    @property
    def input(self) -> str:
        return self.model.signature.inputs[0].name

    @property
    def head(self) -> str:
        return self.model.head


@dataclass(frozen=True)
class Peer:
    """A way to an int8 file. make: writes it to a path; what it gives, if anything, are seconds that another file of
    the same settings has spent for it already. ours: the row that the others are held against."""

    name: str
    suffix: str
    make: Callable[[Given, Path], float | None]
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


def edgekit(exporter: Any, **options: Any) -> Callable[[Given, Path], float]:
    """`quantize` with these options, and an exporter."""

    def make(given: Given, path: Path) -> float:
        from toolkit.passes.quantize import Quantize

        data: Any = Images(given.input, given.images)
        key, spent = repr(sorted(options.items())), 0.0
        if key in given.passed:
            made, spent = given.passed[key]
        else:
            started = time.perf_counter()
            context = PassContext(original=given.model, calibration=data)
            made = Quantize(**{"scheme": "int8", **options}).run(given.model, context).model
            given.passed[key] = made, time.perf_counter() - started
        exporter.export(made, path, ExportContext(calibration=data))
        return spent

    return make


def ours(name: str, settings: dict[str, Any], *, judge: bool = False) -> tuple[Peer, Peer]:
    """Edgekit with these settings of `quantize`, as both files."""
    made = ((".tflite", TFLite()), (".onnx", ONNX(dynamic_batch=True)))
    one, two = (Peer(name, suffix, edgekit(exporter, **settings), judge) for suffix, exporter in made)
    return one, two


def shipped() -> dict[str, Any]:
    """The settings of `quantize` in the shipped recipe."""
    (step,) = load_recipe(RECIPE).variants[0].passes
    settings: dict[str, Any] = step.component.model_dump(exclude_unset=True)
    return settings


def asked(text: str) -> tuple[Peer, Peer]:
    """Edgekit with these settings alone (TOML, several of them apart by `;`)."""
    return ours(f"{EDGEKIT}, {text}", tomllib.loads(text.replace(";", "\n")))


def elsewhere(name: str, python: Path, limit: float | None = None) -> Peer:
    """A tool of another environment, by the script by_NAME.py beside this file; limit: seconds that it may take."""
    script = Path(__file__).with_name(f"by_{name}.py")
    if not script.is_file():
        raise SystemExit(f"--peer {name}: there is no {script}. Fix: write one, as by_nncf.py is.")

    def make(given: Given, path: Path) -> None:
        images, source = path.with_suffix(".npz"), path.with_suffix(".source.onnx")
        np.savez(images, images=given.images, input=given.input)
        shutil.copyfile(given.float_onnx, source)  # nvidia-modelopt writes into what it is given
        command = [str(python), str(script.resolve()), str(source), str(images), str(path)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=limit, cwd=path.parent, env=_plain()
            )
        except subprocess.TimeoutExpired:
            raise RuntimeError(f"not done in {limit:.0f} s") from None
        finally:
            images.unlink()
            source.unlink()
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise RuntimeError(f"signal {-done.returncode}" if done.returncode < 0 else reason)

    return Peer(_named(name, python), ".onnx", make)


def _plain() -> dict[str, str]:
    """The environment without what is for this interpreter alone."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "TF_", "KERAS_"))}


def _named(name: str, python: Path) -> str:
    """With its version."""
    package = PACKAGES.get(name, name)
    code = f"from importlib.metadata import version; print(version({package!r}))"
    done = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=False)
    return f"{package} {done.stdout.strip()}".strip()


FROM_RECIPE = ours(EDGEKIT, shipped(), judge=True)
BARE = ours(f"{EDGEKIT} without corrections", {**shipped(), "corrections": []})
PEERS: tuple[Peer, ...] = (
    Peer(f"TensorFlow {version('tensorflow')}, {TUTORIAL_IMAGES} images", ".tflite", tensorflow(TUTORIAL_IMAGES)),
    Peer(f"TensorFlow {version('tensorflow')}", ".tflite", tensorflow(1_000_000)),
    Peer(f"ai-edge-quantizer {version('ai-edge-quantizer')}", ".tflite", ai_edge_quantizer),
    FROM_RECIPE[0],
    BARE[0],
    Peer(f"onnxruntime {version('onnxruntime')}, defaults", ".onnx", onnxruntime()),
    Peer(
        f"onnxruntime {version('onnxruntime')}, per channel",
        ".onnx",
        onnxruntime(per_channel=True, activation_type="QUInt8"),
    ),
    FROM_RECIPE[1],
    BARE[1],
)
