"""Models are code: none of it runs, whatever the file; and what the user names does."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from toolkit.core import Model
from toolkit.errors import InputError, UnsupportedError
from toolkit.sources import legacy, store
from toolkit.sources.keras import Keras

tfk = pytest.importorskip("tf_keras", reason="the extra `legacy`")

MODULE = """
import keras
import tf_keras
import tensorflow as tf


def halved(x):
    return x / 2.0


@keras.saving.register_keras_serializable("Mine")
class Shifted(keras.layers.Layer):
    def call(self, inputs):
        return inputs + 3.0


class Doubled(tf_keras.layers.Layer):
    def call(self, inputs):
        return inputs * 2.0
"""
TWIN = """
import keras


class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return inputs * 2.0
"""


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    """A file that only the code inside a model file would make."""
    return tmp_path / "ran"


def touching(marker: Path) -> Any:
    return eval(f"lambda x: (open({str(marker)!r}, 'w').close(), x)[1]")  # a lambda, as in files: bytecode


def evil_class(package: Any, marker: Path) -> Any:
    """A registered layer, which loaders find by its name."""

    @package.saving.register_keras_serializable("Evil")
    class Sneaky(package.layers.Layer):  # type: ignore[misc, name-defined]
        def __init__(self, **more: Any) -> None:
            super().__init__(**more)
            marker.write_text("ran")

        def call(self, inputs: Any) -> Any:
            return inputs

        def get_config(self) -> dict[str, Any]:
            return {"name": self.name}

    return Sneaky


def write(package: Any, layer: Any, path: Path, **more: Any) -> Path:
    """A model with the layer inside a model inside the model."""
    inner = package.Sequential([package.layers.Input((4,)), layer], name="inner")
    image = package.Input((4,))
    model = package.Model(image, package.layers.Dense(2)(inner(image)))
    model.save(path, **more)
    return path


def read(path: Path, **more: Any) -> Model:
    return legacy.load_saved_model(path, **more) if path.is_dir() else Keras(**more).load(path)


FORMS = [
    pytest.param(keras, "m.keras", {}, id="keras3-keras"),
    pytest.param(keras, "m.h5", {}, id="keras3-h5"),
    pytest.param(tfk, "m.keras", {}, id="keras2-keras"),
    pytest.param(tfk, "m.h5", {}, id="keras2-h5"),
    pytest.param(tfk, "m", {"save_format": "tf"}, id="keras2-savedmodel"),
]


@pytest.mark.parametrize(("package", "name", "more"), FORMS)
@pytest.mark.parametrize("kind", ["lambda", "class"])
def test_code_never_runs(
    tmp_path: Path, marker: Path, package: Any, name: str, more: dict[str, Any], kind: str
) -> None:
    if kind == "lambda":
        layer = package.layers.Lambda(touching(marker), name="sneaky")
    else:
        layer = evil_class(package, marker)(name="sneaky")
    path = write(package, layer, tmp_path / name, **more)
    marker.unlink()  # building the model ran it
    with pytest.raises(UnsupportedError, match="'sneaky' holds code of its own") as caught:
        read(path)
    assert not marker.exists()
    assert "\n" not in str(caught.value)


def test_the_loader_itself_would_have_run_it(tmp_path: Path, marker: Path) -> None:
    """The control: what the tests above prove is not proved by files that do nothing."""
    path = write(tfk, tfk.layers.Lambda(touching(marker), name="sneaky"), tmp_path / "m.h5")
    marker.unlink()
    tfk.models.load_model(path, compile=False)
    assert marker.exists()


def test_wrapped_lambda_never_runs(tmp_path: Path, marker: Path) -> None:
    image = tfk.Input((3, 4))
    layer = tfk.layers.TimeDistributed(tfk.layers.Lambda(touching(marker), name="sneaky"), name="outer")
    tfk.Model(image, layer(image)).save(tmp_path / "m.h5")
    marker.unlink()
    with pytest.raises(UnsupportedError, match="'sneaky'"):
        read(tmp_path / "m.h5")
    assert not marker.exists()


def test_function_of_tensorflow_that_writes_files_never_runs(tmp_path: Path, marker: Path) -> None:
    """A layer that calls tf.io.write_file needs no Python code at all."""
    image = tfk.Input((4,), name="image")
    path = tmp_path / "m.h5"
    tfk.Model(image, tfk.layers.Dense(1, name="dense")(image)).save(path)
    with h5py.File(path, "a") as file:
        config = json.loads(file.attrs["model_config"])
        inbound = [["dense", 0, 0, {"filename": str(marker), "contents": "x"}]]
        op = {"name": "sneaky", "function": "io.write_file", "trainable": True, "dtype": "float32"}
        config["config"]["layers"].append(
            {"class_name": "TFOpLambda", "config": op, "name": "sneaky", "inbound_nodes": inbound}
        )
        config["config"]["output_layers"] = [["sneaky", 0, 0]]
        file.attrs["model_config"] = json.dumps(config).encode()
    with pytest.raises(UnsupportedError, match=r"'sneaky' calls tf\.io\.write_file, which has no form in Keras 3"):
        read(path)
    assert not marker.exists()


@pytest.mark.parametrize(("package", "name", "more"), FORMS)
def test_loss_of_ones_own_is_never_compiled(
    tmp_path: Path, marker: Path, package: Any, name: str, more: dict[str, Any]
) -> None:
    @package.saving.register_keras_serializable("Evil")
    class Loss(package.losses.Loss):  # type: ignore[misc, name-defined]
        def __init__(self, **rest: Any) -> None:
            super().__init__()
            marker.write_text("ran")

        def call(self, y_true: Any, y_pred: Any) -> Any:
            return y_pred

        def get_config(self) -> dict[str, Any]:
            return {}

    image = package.Input((4,))
    model = package.Model(image, package.layers.Dense(2, activation="softmax")(image))
    model.compile("sgd", Loss())
    model.save(tmp_path / name, **more)
    marker.unlink()
    assert read(tmp_path / name).head == "softmax"
    assert not marker.exists()


# ---------------------------------------------------------------- allowed


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A module of the user's; Keras forgets it afterwards."""
    (tmp_path / "edgekit_mine.py").write_text(MODULE)
    (tmp_path / "edgekit_twin.py").write_text(TWIN)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = dict(keras.saving.get_custom_objects())
    import edgekit_mine

    yield edgekit_mine
    forget()
    keras.saving.get_custom_objects().update(before)  # Edgekit's own layers among them
    for name in ("edgekit_mine", "edgekit_twin"):
        sys.modules.pop(name, None)


def forget() -> None:
    """As in another process."""
    keras.saving.get_custom_objects().clear()
    sys.modules.pop("edgekit_mine", None)


def _shifted(mine: Any) -> Any:
    return mine.Shifted(name="odd")


def _halved(mine: Any) -> Any:
    return keras.layers.Lambda(mine.halved, name="odd")


@pytest.mark.parametrize(("layer", "suffix"), [(_shifted, "keras"), (_halved, "keras"), (_shifted, "h5")])
def test_module_that_is_named_may_define_layers(
    tmp_path: Path, mine: Any, layer: Callable[[Any], Any], suffix: str
) -> None:
    path = write(keras, layer(mine), tmp_path / f"m.{suffix}")
    before = keras.models.load_model(
        path, compile=False, custom_objects={"halved": mine.halved, "Shifted": mine.Shifted}
    )
    images = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    expected = np.asarray(before(images))
    forget()
    with pytest.raises(UnsupportedError, match="'odd'"):
        read(path)
    found = read(path, allow_code=("edgekit_mine",))
    np.testing.assert_allclose(found.graph(images), expected, rtol=1e-5)
    store.save(found, tmp_path / "stage.keras")
    forget()
    with pytest.raises(UnsupportedError, match=r"of module edgekit_mine. Fix: add --allow-code edgekit_mine"):
        store.restore(tmp_path / "stage.keras")  # a run directory cannot allow what its owner did not
    again = store.restore(tmp_path / "stage.keras", ("edgekit_mine",))
    np.testing.assert_allclose(again.graph(images), expected, rtol=1e-5)


@pytest.mark.parametrize(("package", "name", "more"), [form for form in FORMS if form.values[0] is tfk])
def test_module_that_is_named_may_define_layers_of_keras_2(
    tmp_path: Path, mine: Any, package: Any, name: str, more: dict[str, Any]
) -> None:
    layer = tfk.layers.Lambda(lambda x: x / 2.0, name="halved")  # Keras 2 keeps bytecode, whatever it is given
    image = tfk.Input((4,))
    model = tfk.Model(image, tfk.layers.Dense(2)(layer(image)))
    model.save(tmp_path / name, **more)
    images = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    with pytest.raises(UnsupportedError, match=r"'halved'.*put a function with the layer's name into a module"):
        read(tmp_path / name)
    found = read(tmp_path / name, allow_code=("edgekit_mine",))
    np.testing.assert_allclose(found.graph(images), model(images), rtol=1e-5)


def test_layer_class_of_keras_2_needs_its_twin_for_keras_3(tmp_path: Path, mine: Any) -> None:
    image = tfk.Input((4,))
    model = tfk.Model(image, tfk.layers.Dense(2)(mine.Doubled(name="odd")(image)))
    model.save(tmp_path / "m.h5")
    with pytest.raises(UnsupportedError, match="'odd'"):
        read(tmp_path / "m.h5")
    with pytest.raises(UnsupportedError, match=r"'odd' \(Doubled\) has no form in Keras 3"):
        read(tmp_path / "m.h5", allow_code=("edgekit_mine",))
    found = read(tmp_path / "m.h5", allow_code=("edgekit_mine", "edgekit_twin"))
    images = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    np.testing.assert_allclose(found.graph(images), model(images), rtol=1e-5)


def test_bytecode_in_the_file_never_runs_though_a_module_is_named(tmp_path: Path, marker: Path, mine: Any) -> None:
    path = write(keras, keras.layers.Lambda(touching(marker), name="sneaky"), tmp_path / "m.keras")
    marker.unlink()
    with pytest.raises(UnsupportedError, match=r"'sneaky'.*bytecode"):
        read(path, allow_code=("edgekit_mine",))
    assert not marker.exists()


def test_module_that_cannot_be_imported_is_named(tmp_path: Path) -> None:
    path = write(keras, keras.layers.Dense(2), tmp_path / "m.keras")
    with pytest.raises(InputError, match="module 'no_such_module' cannot be imported"):
        read(path, allow_code=("no_such_module",))
