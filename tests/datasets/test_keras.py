"""keras.datasets by name, with what Keras would download put in its place."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from toolkit.datasets.keras import KerasDatasets
from toolkit.errors import UnavailableError

IMAGES = np.arange(5 * 2 * 2 * 3, dtype=np.uint8).reshape(5, 2, 2, 3)


def given(monkeypatch: pytest.MonkeyPatch, name: str, load: Callable[[], Any]) -> None:
    monkeypatch.setitem(sys.modules, f"keras.datasets.{name}", SimpleNamespace(load_data=load))


def test_keras_parts_become_subsets_with_the_datasets_own_names(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.array([[3], [9], [0], [1], [1]], np.uint8)
    given(monkeypatch, "cifar10", lambda: ((IMAGES[:3], labels[:3]), (IMAGES[3:], labels[3:])))
    records = KerasDatasets(name="cifar10").load()
    assert (records.subsets, records.ids[3]) == (("train",) * 3 + ("test",) * 2, "test/0")
    assert (records.labels.tolist(), records.classes[3], len(records.classes)) == ([3, 9, 0, 1, 1], "cat", 10)
    for index in range(5):
        np.testing.assert_array_equal(records.read(index), IMAGES[index])


def test_keras_digits_are_gray(monkeypatch: pytest.MonkeyPatch) -> None:
    gray = IMAGES[..., 0]
    given(monkeypatch, "mnist", lambda: ((gray[:3], np.array([7, 0, 1])), (gray[3:], np.array([2, 2]))))
    records = KerasDatasets(name="mnist").load()
    assert (records.read(4).shape, records.classes) == ((2, 2, 1), tuple("0123456789"))


def test_keras_downloads_that_fail_are_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused() -> None:
        raise Exception("URL fetch failure on https://somewhere: None -- Name not known\nmore")  # as get_file does

    given(monkeypatch, "mnist", refused)
    with pytest.raises(UnavailableError, match=r"mnist: cannot be downloaded: URL fetch.* Fix: run once"):
        KerasDatasets(name="mnist").load()


def test_keras_knows_only_its_image_datasets() -> None:
    with pytest.raises(ValidationError, match="'mnist', 'fashion_mnist'"):
        KerasDatasets(name="imdb")  # type: ignore[arg-type]
