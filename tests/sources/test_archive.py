"""A `.keras` archive is judged as data: damaged, hostile and code-bearing files are refused before any loader runs."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import pytest

from toolkit.errors import InputError, UnsupportedError
from toolkit.sources import archive

METADATA = {"keras_version": "3.15.1"}


def dense(name: str = "dense", **more: Any) -> dict[str, Any]:
    return {"module": "keras.layers", "class_name": "Dense", "registered_name": None, "config": {"name": name, **more}}


def write(path: Path, config: Any, metadata: Any = METADATA, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("config.json", config if isinstance(config, str | bytes) else json.dumps(config))
        file.writestr("metadata.json", json.dumps(metadata))
        file.writestr("model.weights.h5", b"\x89HDF")
        for name, content in members.items():
            file.writestr(name, content)
    return path


def model(*layers: dict[str, Any]) -> dict[str, Any]:
    return {"module": "keras", "class_name": "Functional", "config": {"name": "net", "layers": list(layers)}}


def test_archive_of_built_in_layers_passes(tmp_path: Path) -> None:
    archive.check(write(tmp_path / "m.keras", model(dense(), dense("second"))))


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        ({"module": "keras.layers", "class_name": "Lambda", "config": {"name": "sneaky"}}, "Lambda"),
        ({"module": "mine", "class_name": "Dense", "config": {"name": "sneaky"}}, "mine.Dense"),
        ({"module": "kerasx.layers", "class_name": "Dense", "config": {"name": "sneaky"}}, "kerasx.layers.Dense"),
        (
            {"module": "keras.layers", "class_name": "X", "registered_name": "Pkg>X", "config": {"name": "sneaky"}},
            "Pkg>X",
        ),
        (dense("sneaky", activation={"module": "builtins", "class_name": "function", "config": "evil"}), "function"),
        (dense("sneaky", inner=[{"deep": {"class_name": "__lambda__", "config": {"value": "x"}}}]), "__lambda__"),
    ],
)
def test_code_is_refused_by_layer_name(tmp_path: Path, layer: dict[str, Any], what: str) -> None:
    nested = model(
        dense(), {"module": "keras", "class_name": "Sequential", "config": {"name": "in", "layers": [layer]}}
    )
    with pytest.raises(UnsupportedError) as caught:
        archive.check(write(tmp_path / "m.keras", nested))
    assert "'sneaky'" in str(caught.value)
    assert what in str(caught.value)


def test_keras_2_file_is_told_by_its_version(tmp_path: Path) -> None:
    found = archive.check(write(tmp_path / "m.keras", model(dense()), {"keras_version": "2.15.0"}))
    assert (found.form, found.version, found.legacy) == (".keras", "2.15.0", True)
    assert not archive.check(write(tmp_path / "n.keras", model(dense()))).legacy


@pytest.mark.parametrize("name", ["../../evil.txt", "/etc/evil", "..\\evil"])
def test_member_that_climbs_out_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="climbs out"):
        archive.check(write(tmp_path / "m.keras", model(dense()), METADATA, **{name: b"x"}))


def test_config_that_unpacks_without_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_CONFIG", 1000)
    with pytest.raises(InputError, match=r"config\.json unpacks to more than"):
        archive.check(write(tmp_path / "m.keras", " " * 5000))


def test_archive_that_unpacks_without_bound_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MAX_TOTAL", 1000)
    with pytest.raises(InputError, match="unpacks to more than"):
        archive.check(write(tmp_path / "m.keras", model(dense()), METADATA, bomb=b"\0" * 100_000))


def test_archive_of_next_to_nothing_that_fills_the_memory_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "m.keras", model(dense()), METADATA, bomb=b"\0" * 1_000_000)
    archive.check(path)
    monkeypatch.setattr(archive, "SMALL", 500_000)
    with pytest.raises(InputError, match=r"unpacks to \d+ times its size"):
        archive.check(path)


def test_deep_config_is_searched_without_recursion(tmp_path: Path) -> None:
    deep: Any = {"class_name": "Lambda", "config": {"name": "deep"}}
    for _ in range(300):
        deep = {"config": deep}
    with pytest.raises(UnsupportedError, match="'deep'"):
        archive.check(write(tmp_path / "m.keras", deep))


def test_config_too_deep_for_a_parser_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not JSON"):
        archive.check(write(tmp_path / "m.keras", "[" * 200_000))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty"),
        (b"\x89HDF\r\n\x1a\n rest", "is an HDF5 file"),
        (b"hello, this is text", r"is not a \.keras archive"),
        (b"PK\x03\x04 cut off", "is damaged"),
    ],
)
def test_file_that_is_not_what_its_name_says(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "m.keras"
    path.write_bytes(content)
    with pytest.raises(InputError, match=problem):
        archive.check(path)


def test_truncated_and_flipped_archives_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "m.keras", model(dense()))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="is damaged"):
        archive.check(path)
    flipped = bytearray(whole)
    flipped[60] ^= 0xFF
    path.write_bytes(flipped)
    with pytest.raises(InputError):
        archive.check(path)


def test_missing_folder_and_zip_of_something_else(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        archive.check(tmp_path / "none.keras")
    with pytest.raises(InputError, match="is a folder"):
        archive.check(tmp_path)
    other = tmp_path / "other.keras"
    with zipfile.ZipFile(other, "w") as file:
        file.writestr("readme.txt", "x")
    with pytest.raises(InputError, match=r"without config\.json"):
        archive.check(other)
