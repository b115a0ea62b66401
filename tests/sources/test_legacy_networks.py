"""Networks of tf.keras.applications as tf_keras writes them, and real Keras 2 files: carried over with equal outputs.

Run with `-s` to see the table: file, largest output difference, largest output.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.sources import legacy
from toolkit.sources.keras import Keras

tfk = pytest.importorskip("tf_keras", reason="the extra `legacy`")

# smallest side the network takes, or near it
NETWORKS = {
    "MobileNetV2": 64,
    "MobileNetV3Small": 64,
    "EfficientNetB0": 64,
    "EfficientNetV2B0": 64,
    "ResNet50": 64,
    "DenseNet121": 64,
    "VGG16": 32,
    "InceptionV3": 75,
    "Xception": 75,
}
REAL = ("mnist_dw", "mnist_resnet", "mobilenet_v1_0.25_224", "pretrainedResnet", "vww_96")


def compared(name: str, old: Any, found: Any) -> float:
    """Largest difference relative to the largest output, on images unlike those of the check at load."""
    images = np.random.default_rng(11).uniform(-1, 1, (4, *found.inputs[0].shape[1:])).astype("float32")
    one, two = np.asarray(old(images, training=False)), np.asarray(found(images, training=False))
    difference, scale = float(np.abs(one - two).max()), float(np.abs(one).max())
    print(f"{name:<28} {difference:.1e} of {scale:.2g}")
    return difference / scale


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_network_of_applications_comes_over(tmp_path: Path, name: str) -> None:
    side = NETWORKS[name]
    classes = {"classes": 10} if name == "VGG16" else {}
    tfk.utils.set_random_seed(2)
    old = getattr(tfk.applications, name)(weights=None, input_shape=(side, side, 3), **classes)
    rng = np.random.default_rng(2)
    for weight in old.weights:  # BatchNormalization that does something
        if any(part in weight.name for part in ("gamma", "beta", "moving_mean")):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
    for suffix in (".h5", ".keras"):
        path = tmp_path / f"{name}{suffix}"
        old.save(path)
        found = Keras().load(path)
        assert found.head == "softmax"
        assert compared(path.name, old, found.graph) <= 1e-5
        path.unlink()


@pytest.mark.slow
def test_saved_model_of_a_network_comes_over(tmp_path: Path) -> None:
    old = tfk.applications.MobileNetV2(weights=None, input_shape=(64, 64, 3), alpha=0.35)
    old.save(tmp_path / "folder", save_format="tf")
    found = legacy.load_saved_model(tmp_path / "folder")
    assert compared("MobileNetV2 SavedModel", old, found.graph) <= 1e-5


def _data() -> Path:
    folder = os.environ.get("EDGEKIT_DATA")
    if not folder:
        pytest.skip("EDGEKIT_DATA is not set")
    return Path(folder)


@pytest.mark.data
@pytest.mark.parametrize("name", REAL)
def test_real_file_of_keras_2_comes_over(name: str) -> None:
    path = _data() / "models" / "legacy" / f"{name}.h5"
    found = Keras().load(path)
    assert compared(path.name, tfk.models.load_model(path, compile=False), found.graph) <= 1e-5


@pytest.mark.data
@pytest.mark.parametrize(("name", "accuracy"), [("mnist_dw", 0.910), ("mnist_resnet", 0.975)])
def test_real_file_reaches_its_accuracy(name: str, accuracy: float) -> None:
    folder = _data()
    arrays = np.load(folder / "data" / "mnist_13k.npz")
    images = arrays["x_test"].astype("float32")[..., None] / 255
    found = Keras().load(folder / "models" / "legacy" / f"{name}.h5")
    decided = found.graph.predict(images, verbose=0).argmax(-1)
    assert (decided == arrays["y_test"]).mean() == pytest.approx(accuracy, abs=0.001)
