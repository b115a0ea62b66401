"""HDF5 files are looked at as data: nothing outside the file is read, nothing larger than the file is believed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from toolkit.errors import InputError, UnsupportedError
from toolkit.sources import hdf5
from toolkit.sources.code import Allowed
from toolkit.sources.keras import Keras

CONFIG = {"class_name": "Sequential", "config": {"name": "net", "layers": []}}


def write(path: Path, config: Any = CONFIG, version: str = "2.11.0") -> Path:
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config).encode()
        file.attrs["keras_version"] = version.encode()
        file.create_group("model_weights")["kernel"] = np.ones((2, 3), np.float32)
    return path


def check(path: Path) -> Any:
    return hdf5.check(path, Allowed())


def test_sound_file_gives_its_version_and_architecture(tmp_path: Path) -> None:
    found = check(write(tmp_path / "m.h5"))
    assert (found.form, found.version, found.config, found.legacy) == (".h5", "2.11.0", CONFIG, True)
    assert not check(write(tmp_path / "m3.h5", version="3.15.1")).legacy
    assert hdf5.check_weights("m", tmp_path / "m.h5") == 6


def test_architecture_in_numbered_parts_is_put_together(tmp_path: Path) -> None:
    path, text = write(tmp_path / "m.h5"), json.dumps(CONFIG).encode()
    with h5py.File(path, "a") as file:
        del file.attrs["model_config"]
        file.attrs["model_config0"], file.attrs["model_config1"] = text[:20], text[20:]
    assert check(path).config == CONFIG


def test_values_of_an_optimizer_are_not_weights(tmp_path: Path) -> None:
    path = write(tmp_path / "m.h5")
    with h5py.File(path, "a") as file:
        file.create_group("optimizer_weights")["momentum"] = np.ones((5,), np.float32)
    assert hdf5.check_weights("m", path) == 6


def _external_link(file: h5py.File, folder: Path) -> None:
    file["model_weights/stolen"] = h5py.ExternalLink(str(folder / "other.h5"), "/secret")


def _soft_link(file: h5py.File, folder: Path) -> None:
    file["model_weights/again"] = h5py.SoftLink("/model_weights/kernel")


def _external_storage(file: h5py.File, folder: Path) -> None:
    file.create_dataset("model_weights/raw", (4,), "f4", external=[(str(folder / "passwd"), 0, 16)])


def _virtual(file: h5py.File, folder: Path) -> None:
    layout = h5py.VirtualLayout((4,), "f4")
    layout[:] = h5py.VirtualSource(str(folder / "other.h5"), "secret", shape=(4,))
    file.create_virtual_dataset("model_weights/view", layout)


def _bomb(file: h5py.File, folder: Path) -> None:
    file.create_dataset("model_weights/huge", (2**31,), "f4", chunks=(2**20,), compression="gzip")  # 8 GiB of nothing


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (_external_link, "is a link to another file"),
        (_soft_link, "is a symbolic link"),
        (_external_storage, "is stored in other files"),
        (_virtual, "is stored in other files"),
        (_bomb, "declares arrays of 8,589,93"),
    ],
)
def test_file_that_reaches_beyond_itself_is_refused(tmp_path: Path, spoil: Any, problem: str) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["secret"] = np.ones(4, np.float32)
    path = write(tmp_path / "m.h5")
    with h5py.File(path, "a") as file:
        spoil(file, tmp_path)
    for look in (check, lambda p: hdf5.check_weights("m", p), lambda p: hdf5.check_weights("m", p.read_bytes())):
        with pytest.raises(InputError, match=problem) as caught:
            look(path)
        assert "\n" not in str(caught.value)


def test_cycle_of_groups_ends(tmp_path: Path) -> None:
    path = write(tmp_path / "m.h5")
    with h5py.File(path, "a") as file:
        file["model_weights/self"] = file["model_weights"]
    assert hdf5.check_weights("m", path) == 6


def test_attribute_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "m.h5")
    with h5py.File(path, "a") as file:
        file["model_weights"].attrs["layer_names"] = np.array([b"x" * 100] * 100)
    check(path)
    monkeypatch.setattr(hdf5, "MAX_CONFIG", 5000)
    with pytest.raises(InputError, match="'layer_names' of '/model_weights' is too large"):
        check(path)


def test_architecture_beyond_the_limit_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5, "MAX_CONFIG", 50)
    with pytest.raises(InputError, match="model_config is larger"):
        check(write(tmp_path / "m.h5"))


@pytest.mark.parametrize("config", [[1, 2], "text", None])
def test_architecture_that_is_no_table_is_refused(tmp_path: Path, config: Any) -> None:
    with pytest.raises(InputError, match="is not a table"):
        check(write(tmp_path / "m.h5", config))


def test_every_cut_of_a_file_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "m.h5")
    whole = path.read_bytes()
    for end in (9, 100, len(whole) // 2, len(whole) - 10):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError) as caught:
            check(path)
        assert "\n" not in str(caught.value)


def test_weights_only_and_other_hdf5_are_told_apart(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file.attrs["layer_names"] = [b"dense"]
    with pytest.raises(InputError, match="holds weights only: no architecture"):
        check(tmp_path / "w.h5")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        file["images"] = np.zeros(3)
    with pytest.raises(InputError, match="no Keras model"):
        check(tmp_path / "data.h5")


def test_file_that_crashes_the_library_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library crashes on some damaged files (a flipped byte in an attribute's header); here its stand-in does."""
    crashing = tmp_path / "trial.py"
    crashing.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    path = write(tmp_path / "m.h5")
    assert check(path)
    monkeypatch.setattr(hdf5.hdf5_trial, "__file__", str(crashing))
    with pytest.raises(InputError, match="reading it crashes the HDF5 library"):
        check(path)


def test_damage_inside_arrays_is_found(tmp_path: Path) -> None:
    """A chunk whose checksum does not match is damage that only reading it shows."""
    path = write(tmp_path / "m.h5")
    marked = np.full((1000,), 1234.5, np.float32)
    with h5py.File(path, "a") as file:
        file["model_weights"].create_dataset("chunked", data=marked, chunks=(1000,), fletcher32=True)
    check(path)
    content = path.read_bytes()
    place = content.index(marked.tobytes())
    path.write_bytes(content[: place + 8] + b"\0\0\0\1" + content[place + 12 :])
    with pytest.raises(InputError, match="is damaged or no HDF5 file"):
        check(path)


@pytest.mark.parametrize(
    ("name", "content", "problem", "fix"),
    [
        ("m.h5", b"PK\x03\x04 rest", "is a .keras archive, not an HDF5 file", "rename it to m.keras"),
        ("m.keras", b"\x89HDF\r\n\x1a\n rest", "is an HDF5 file, not a .keras archive", "rename it to m.h5"),
        ("m.keras", b"\x20\x00\x00\x00TFL3 rest", "is a TFLite file", "rename it to m.tflite"),
        ("m.h5", b"\x08\x08\x12\x07pytorch", "is an ONNX file", "rename it to m.onnx"),
        ("m.h5", b"hello, this is text", "is not an HDF5 file", "model.save"),
        ("m.hdf5", b"", "is empty", ""),
    ],
)
def test_file_that_is_not_what_its_name_says(tmp_path: Path, name: str, content: bytes, problem: str, fix: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        Keras().load(path)
    assert problem in str(caught.value)
    assert fix in str(caught.value)


def test_saved_model_folder_named_keras_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "m.keras"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"x")
    with pytest.raises(InputError, match="is a folder, a SavedModel"):
        Keras().load(folder)


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        ({"class_name": "Lambda", "config": {"name": "sneaky", "function": ["4wEA", None, None]}}, "Lambda"),
        ({"class_name": "Pkg>Mine", "config": {"name": "sneaky"}}, "Pkg>Mine"),
        ({"class_name": "Dense", "config": {"name": "sneaky", "activation": "evil"}}, "activation 'evil'"),
        (
            {
                "class_name": "TimeDistributed",
                "config": {
                    "name": "outer",
                    "layer": {"class_name": "Lambda", "config": {"name": "sneaky", "function": "os.system"}},
                },
            },
            "Lambda",
        ),
        (
            {
                "class_name": "Dense",
                "config": {"name": "sneaky", "kernel_regularizer": {"class_name": "P>Reg", "config": {}}},
            },
            "P>Reg",
        ),
        (
            {
                "class_name": "Dense",
                "config": {
                    "name": "sneaky",
                    "kernel_constraint": {"module": "os", "class_name": "system", "config": "true"},
                },
            },
            "os.system",
        ),
    ],
)
def test_code_in_an_architecture_is_refused_by_layer(tmp_path: Path, layer: dict[str, Any], what: str) -> None:
    config = {"class_name": "Sequential", "config": {"name": "net", "layers": [layer]}}
    with pytest.raises(UnsupportedError) as caught:
        check(write(tmp_path / "m.h5", config))
    assert "'sneaky'" in str(caught.value)
    assert what in str(caught.value)
