"""tensorflow_datasets by name: a dataset that the package itself writes here, and what cannot be had."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from toolkit.datasets.tfds import Tfds
from toolkit.errors import InputError, UnavailableError

tfds = pytest.importorskip("tensorflow_datasets", reason="needs tensorflow-datasets")


def picture(index: int) -> np.ndarray:
    return np.full((4, 5, 3), 10 * index, np.uint8)


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dataset of two splits, written by the package."""

    pytest.importorskip("importlib_resources", reason="tensorflow-datasets needs it and does not declare it")

    class EdgekitPets(tfds.core.GeneratorBasedBuilder):  # type: ignore[misc]
        VERSION = tfds.core.Version("1.0.0")
        MODULE_DOC = ""

        def _info(self) -> Any:
            names = tfds.features.ClassLabel(names=["dog", "cat"])
            held = {"image": tfds.features.Image(shape=(4, 5, 3)), "label": names, "score": np.float32}
            return tfds.core.DatasetInfo(builder=self, description="x", features=tfds.features.FeaturesDict(held))

        def _split_generators(self, dl_manager: Any) -> Any:
            return {"train": self._generate_examples(range(5)), "test": self._generate_examples(range(5, 7))}

        def _generate_examples(self, numbers: range) -> Any:
            for number in numbers:
                yield number, {"image": picture(number), "label": number % 2, "score": 0.5}

    folder = tmp_path_factory.mktemp("tfds")
    EdgekitPets.pkg_dir_path = folder
    EdgekitPets(data_dir=str(folder)).download_and_prepare()
    return folder


def test_tfds_records_are_those_that_were_written(catalogue: Path) -> None:
    records = Tfds(name="edgekit_pets", data_dir=catalogue).load()
    assert (records.classes, sorted(records.subsets)) == (("dog", "cat"), ["test"] * 2 + ["train"] * 5)
    found = sorted((int(records.read(i)[0, 0, 0]) // 10, int(records.labels[i])) for i in range(7))
    assert found == [(number, number % 2) for number in range(7)]
    in_test = {int(records.read(i)[0, 0, 0]) // 10 for i in range(7) if records.subsets[i] == "test"}
    assert in_test == {5, 6}
    assert records.faults() == {}


def test_tfds_names_the_features_there_are(catalogue: Path) -> None:
    with pytest.raises(InputError, match=r"has no ClassLabel feature 'score'. Fix: its features: image \(Image\)"):
        Tfds(name="edgekit_pets", data_dir=catalogue, label="score").load()


def test_tfds_of_no_such_name_is_an_input_error(catalogue: Path) -> None:
    with pytest.raises(InputError, match="tfds no_such_thing: no such dataset in the catalogue"):
        Tfds(name="no_such_thing", data_dir=catalogue).load()


def test_tfds_that_is_not_here_says_so_without_downloading(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError, match=r"is not in .*mnist.* Fix: prepare it there") as error:
        Tfds(name="mnist", data_dir=tmp_path, download=False).load()
    assert error.value.exit_code == 3


def test_tfds_that_cannot_be_downloaded_is_unavailable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refused() -> None:
        raise ConnectionError("no route to host\nand much more")

    builder = SimpleNamespace(info=SimpleNamespace(splits={}), data_dir=tmp_path, download_and_prepare=refused)
    monkeypatch.setattr(tfds, "builder", lambda name, **options: builder)
    with pytest.raises(UnavailableError, match=r"cannot be downloaded or prepared: no route to host\. Fix: prepare it"):
        Tfds(name="mnist", data_dir=tmp_path).load()


def test_tfds_without_the_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UnavailableError, match=r'pip install "edgekit\[tfds\]"'):
        Tfds(name="mnist").load()


@pytest.mark.parametrize("name", ["huggingface:mnist", "../mnist", "kaggle:x/y", "a b", ""])
def test_tfds_takes_names_of_the_catalogue_alone(name: str) -> None:
    """A namespace would run code from elsewhere."""
    with pytest.raises(ValidationError, match="must be a name of the catalogue"):
        Tfds(name=name)
