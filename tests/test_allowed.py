"""--allow-code names modules; their files are part of what a stage depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit import allowed
from toolkit.errors import InputError
from toolkit.recipe_file import ModelSection


def test_files_names_the_source_of_each_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "layers_of_ours.py").write_text("raise RuntimeError('a file is found without being run')")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert allowed.files(("layers_of_ours",)) == (tmp_path / "layers_of_ours.py",)


@pytest.mark.parametrize("module", ["no_such_module", "no_such.package", "", "toolkit.nothing"])
def test_files_refuses_what_cannot_be_imported(module: str) -> None:
    with pytest.raises(InputError, match=r"--allow-code: no module .* can be imported here. Fix: run from its folder"):
        allowed.files((module,))


@pytest.mark.parametrize(
    ("source", "weights", "application", "files"),
    [
        ("a/model.keras", None, None, ("a/model.keras",)),
        ("keras.applications.VGG16", "imagenet", "VGG16", ()),
        ("keras.applications.VGG16", "/w/vgg.h5", "VGG16", ("/w/vgg.h5",)),
        (None, None, None, ()),
    ],
)
def test_model_section_tells_files_from_networks(
    source: str | None, weights: str | None, application: str | None, files: tuple[str, ...]
) -> None:
    section = ModelSection(source=Path(source) if source else None, weights=weights)
    assert section.application == application
    assert section.files() == tuple(Path(file) for file in files)
