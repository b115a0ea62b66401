"""Every kind of model file: read, exported to TFLite and ONNX, and compared: the table of docs/models.md, file by file.

"read": largest output difference between the file in its own framework and the model read from it. "TFLite", "ONNX":
between the model read and the written file, in LiteRT and ONNX Runtime. All relative to the largest output, on 4 random
images; emulated by nothing, measured here. Files are made on the spot with random weights; --data adds real ones.

    python benchmarks/model_sources.py [--data DIR] [--only PART_OF_A_NAME]
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from toolkit import registry
from toolkit.core import ExportContext, Model
from toolkit.errors import EdgekitError
from toolkit.plan import source_of
from toolkit.stages import answers

IMAGES = 4
REAL = (  # in DIR/models
    "mobilenet_v1_025_224_imagenet.keras",
    "mobilenet_v2_100_224_imagenet_from_int8.keras",
    "mlperf_resnet8_cifar10.keras",
    "mnv2_trashnet6_160.keras",
    "resnet8_cifar10_jpeg.keras",
    "resnet20_cifar10_jpeg.keras",
    "mnv2_cifar10_96.keras",
    "legacy/pretrainedResnet.h5",
    "legacy/vww_96.h5",
    "legacy/mobilenet_v1_0.25_224.h5",
    "legacy/mnist_dw.h5",
    "legacy/mnist_resnet.h5",
    "onnx/resnet20_cifar10_torch.onnx",
    "onnx/resnet20_cifar10_torch_dynamo.onnx",
)
LEGACY = {  # tf_keras.applications, by the smallest square they take
    "MobileNetV2": 96,
    "MobileNetV3Small": 96,
    "EfficientNetB0": 96,
    "EfficientNetV2B0": 96,
    "ResNet50": 96,
    "DenseNet121": 96,
    "VGG16": 64,
    "InceptionV3": 96,
    "Xception": 96,
}


@dataclass(frozen=True)
class Row:
    """A file to read. make: writes it into a folder and names it; range: of the pixels it wants."""

    name: str
    make: Callable[[Path], Path]


def legacy(name: str, side: int, suffix: str) -> Row:
    def make(folder: Path) -> Path:
        import tf_keras

        tf_keras.utils.set_random_seed(0)
        application = getattr(tf_keras.applications, name)
        model = application(weights=None, input_shape=(side, side, 3), classes=10, classifier_activation=None)
        return saved(model, folder, f"{name}{suffix}")

    return Row(f"tf_keras {name}{suffix or ' SavedModel'}", make)


def transferred(suffix: str) -> Row:
    """Augmentation, rescaling by arithmetic (TFOpLambda) and a nested backbone, as tutorials make them."""

    def make(folder: Path) -> Path:
        import tf_keras
        from tf_keras import layers

        tf_keras.utils.set_random_seed(0)
        image = layers.Input((96, 96, 3))
        x = layers.RandomRotation(0.1)(layers.RandomFlip("horizontal")(image))
        x = tf_keras.applications.mobilenet_v2.preprocess_input(x)
        backbone = tf_keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(96, 96, 3))
        x = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(backbone(x, training=False)))
        model = tf_keras.Model(image, layers.Dense(5)(x))
        return saved(model, folder, f"transferred{suffix}")

    return Row(f"tf_keras transfer learning, nested{suffix or ' SavedModel'}", make)


def keras3(name: str, suffix: str, policy: str = "float32") -> Row:
    def make(folder: Path) -> Path:
        import keras

        keras.utils.set_random_seed(0)
        before = keras.config.dtype_policy()
        keras.config.set_dtype_policy(policy)
        try:
            model = getattr(keras.applications, name)(
                weights=None, input_shape=(96, 96, 3), classes=10, classifier_activation=None
            )
        finally:
            keras.config.set_dtype_policy(before)
        if suffix == ".export":
            path = folder / f"{name}-exported"
            enliven(model)
            model.export(path, verbose=False)
            return path
        return saved(model, folder, f"{name}-{policy}{suffix}")

    what = "exported SavedModel without Keras" if suffix == ".export" else f"{suffix} {policy}"
    return Row(f"Keras 3 {name} {what}", make)


def as_tflite() -> Row:
    def make(folder: Path) -> Path:
        import keras
        import tensorflow as tf

        keras.utils.set_random_seed(0)
        model = keras.applications.MobileNetV2(
            weights=None, input_shape=(96, 96, 3), classes=10, classifier_activation=None
        )
        enliven(model)
        model.export(folder / "source", verbose=False)
        path = folder / "MobileNetV2.tflite"
        path.write_bytes(tf.lite.TFLiteConverter.from_saved_model(str(folder / "source")).convert())
        return path

    return Row("float .tflite of MobileNetV2", make)


def saved(model: Any, folder: Path, name: str) -> Path:
    enliven(model)
    path = folder / name
    model.save(path)
    return path


def enliven(model: Any) -> None:
    """Weights of a size that keeps activations alive (He et al. 2015): fresh ones give the same answer to any image."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        shape = tuple(weight.shape)
        name = str(getattr(weight, "path", weight.name)).rsplit("/", 1)[-1].split(":")[0]
        if len(shape) > 1:
            fan_in = np.prod(shape[:2]) if name == "depthwise_kernel" else np.prod(shape[:-1])
            weight.assign(rng.normal(0, np.sqrt(2 / fan_in), shape))
        elif name in ("gamma", "moving_variance", "variance"):
            weight.assign(rng.uniform(0.4, 0.6, shape) if name == "gamma" else rng.uniform(0.8, 1.2, shape))
        elif weight.dtype in ("float32", np.float32):
            weight.assign(rng.normal(0, 0.1, shape))


def real(data: Path) -> Iterator[Row]:
    for name in REAL:
        yield Row(name, lambda folder, name=name: data / "models" / name)


def rows(data: Path | None) -> Iterator[Row]:
    for name, side in LEGACY.items():
        yield legacy(name, side, ".h5")
    yield legacy("MobileNetV2", 96, ".keras")
    yield legacy("MobileNetV2", 96, "")
    for suffix in (".h5", ".keras", ""):
        yield transferred(suffix)
    yield keras3("MobileNetV2", ".keras")
    yield keras3("MobileNetV2", ".h5")
    yield keras3("MobileNetV2", ".keras", "mixed_float16")
    yield keras3("ResNet50", ".keras", "mixed_bfloat16")
    yield keras3("MobileNetV2", ".export")
    yield as_tflite()
    if data:
        yield from real(data)


def measured(row: Row, folder: Path) -> tuple[str, ...]:
    """The cells of a row."""
    path = row.make(folder)
    started = time.perf_counter()
    use = source_of(path)
    if use is None:
        return (row.name, "", "not a model file", "", "")
    try:
        model = registry.load("sources", use)().load(path)
    except EdgekitError as error:
        return (row.name, use, f"refused: {error}", "", "")
    seconds = time.perf_counter() - started
    told = next((note for note in model.notes if "difference" in note), "") or "; ".join(model.notes)
    cells = [exported(model, name, folder) for name in ("tflite", "onnx")]
    return (row.name, model.kind, told, *cells, f"{seconds:.1f}")


def exported(model: Model, exporter: str, folder: Path) -> str:
    """Largest difference of the written file, relative to the largest output, or why there is none."""
    from toolkit.core import Kind
    from toolkit.engine import foreign

    path = folder / f"out.{exporter}"
    component = registry.load("exporters", exporter)()
    try:
        artifact = component.export(model, path, ExportContext())
    except EdgekitError as error:
        return f"refused: {error}"
    kind: Kind = "tflite" if exporter == "tflite" else "onnx"
    ports = tuple(foreign.Port(spec.name, spec.layout == "NCHW") for spec in artifact.signature.inputs)
    names = tuple(spec.name for spec in artifact.signature.outputs)
    given = images(model)
    got = foreign.answers(foreign.Network(kind, path, ports, names), given)
    wanted = answers(model, given)
    gap = max(float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-6)) for a, b in zip(got, wanted, strict=True))
    return f"{gap:.1e}"


def images(model: Model) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    found = {}
    for spec in model.signature.inputs:
        shape = tuple(size or 96 for size in spec.shape[1:])
        shape = (shape[1], shape[2], shape[0]) if spec.layout == "NCHW" else shape
        found[spec.name] = rng.uniform(-1, 1, (IMAGES, *shape)).astype(np.float32)
    return found


@contextmanager
def quiet() -> Iterator[None]:
    """Without what the frameworks print."""
    with Path(os.devnull).open("w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        yield


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with models/, for the real files")
    parser.add_argument("--only", default="", help="only files whose name holds this")
    options = parser.parse_args()
    print("| file | read as | difference in reading | TFLite | ONNX | seconds to read |")
    print("|---|---|---|---|---|---|")
    for row in rows(options.data):
        if options.only in row.name:
            with tempfile.TemporaryDirectory() as folder, quiet():
                cells = measured(row, Path(folder))
            print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
