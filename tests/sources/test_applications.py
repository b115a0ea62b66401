"""keras.applications by name: the weights of a file, or none at all; never random ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.error import URLError

import keras
import numpy as np
import pytest
from pydantic import ValidationError

from toolkit.errors import InputError, UnavailableError
from toolkit.sources.applications import Applications, preset_of

SIZE = (32, 32)


@pytest.fixture(scope="module")
def network() -> Any:
    return keras.applications.MobileNet(weights=None, input_shape=(*SIZE, 3), alpha=1.0, classes=7)


@pytest.fixture(scope="module")
def weights(network: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "mine.weights.h5"
    network.save_weights(path)
    return path


def test_local_weights_give_the_network_they_were_saved_from(network: Any, weights: Path) -> None:
    found = Applications(weights=str(weights), classes=7, input_shape=SIZE).load("MobileNet")
    images = np.random.default_rng(0).uniform(-1, 1, (2, *SIZE, 3)).astype("float32")
    np.testing.assert_allclose(found.graph(images), network(images), rtol=1e-5, atol=1e-7)
    assert found.head == "softmax"
    assert found.signature.inputs[0].shape == (None, 32, 32, 3)
    assert "preprocess = 'signed'" in found.notes[0]


def test_weights_for_other_classes_are_refused(weights: Path) -> None:
    with pytest.raises(InputError, match=r"weights 'mine\.weights\.h5' do not fit"):
        Applications(weights=str(weights), classes=9, input_shape=SIZE).load("MobileNet")


@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
def test_weights_of_another_network_are_refused(weights: Path) -> None:
    with pytest.raises(InputError, match="weights"):
        Applications(weights=str(weights), classes=7, input_shape=SIZE).load("MobileNetV2")


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"\x89HDF\r\n\x1a\n cut", "no HDF5 file"), (b"text", "no HDF5 file"), (b"", "no HDF5 file")],
)
def test_damaged_weights_are_one_line(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "bad.h5"
    path.write_bytes(content)
    with pytest.raises(InputError, match=problem) as caught:
        Applications(weights=str(path)).load("MobileNet")
    assert "\n" not in str(caught.value)


def test_weights_must_be_given_and_exist() -> None:
    with pytest.raises(ValidationError, match="weights"):
        Applications.model_validate({})
    with pytest.raises(InputError, match="no such file, got 'imagnet'"):
        Applications(weights="imagnet").load("MobileNet")


def test_weights_out_of_reach_name_the_file_and_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise URLError("no route to host")

    from keras.src.utils import file_utils

    monkeypatch.setattr(file_utils, "urlretrieve", unreachable)
    monkeypatch.setattr(file_utils.config, "keras_home", lambda: str(tmp_path))
    with pytest.raises(UnavailableError, match=r"MobileNetV2: its ImageNet weights https://\S+_224\.h5") as caught:
        Applications(weights="imagenet").load("MobileNetV2")
    assert caught.value.exit_code == 3
    assert "weights = 'PATH'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_imagenet_weights_for_other_classes_are_a_mistake() -> None:
    with pytest.raises(InputError, match="classes"):
        Applications(weights="imagenet", classes=5).load("MobileNetV2")


def test_unknown_network_suggests_a_known_one() -> None:
    with pytest.raises(InputError, match="did you mean 'MobileNetV2'"):
        Applications(weights="imagenet").load("MobilNetV2")


def test_presets_are_those_of_keras() -> None:
    """Each preset against the application's own preprocess_input; the names are those of the recipe."""
    image = np.full((1, 2, 2, 3), 100.0, np.float32)
    forms = {"raw": 100.0, "signed": 100 / 127.5 - 1, "imagenet": (100 / 255 - 0.485) / 0.229, "caffe": 100 - 103.939}
    apps = keras.applications
    modules = {
        "MobileNetV2": apps.mobilenet_v2,
        "MobileNetV3Small": apps.mobilenet_v3,
        "MobileNet": apps.mobilenet,
        "EfficientNetB0": apps.efficientnet,
        "EfficientNetV2S": apps.efficientnet_v2,
        "ResNet50": apps.resnet,
        "ResNet50V2": apps.resnet_v2,
        "DenseNet121": apps.densenet,
        "VGG16": apps.vgg16,
        "InceptionV3": apps.inception_v3,
        "InceptionResNetV2": apps.inception_resnet_v2,
        "Xception": apps.xception,
        "NASNetMobile": apps.nasnet,
        "ConvNeXtTiny": apps.convnext,
    }
    for name, module in modules.items():
        first = float(module.preprocess_input(image.copy())[0, 0, 0, 0])
        assert first == pytest.approx(forms[preset_of(name)], rel=1e-5), name
    from toolkit.datasets.preprocess import PreprocessSpec

    for preset in forms:
        PreprocessSpec(preset=preset)
