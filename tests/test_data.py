"""Data and model must speak of the same classes in the same order."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toolkit.data import check_classes, class_names
from toolkit.errors import InputError
from toolkit.overrides import dataset_kind


def test_classes_in_the_same_order_pass() -> None:
    check_classes(("cat", "dog"), ("cat", "dog"))


@pytest.mark.parametrize(
    "model, data, problem",
    [
        (("cat", "dog"), ("cat",), "model.classes names 2 classes, the data has 1"),
        (
            ("bird", "dog", "cat"),
            ("bird", "cat", "dog"),
            r"class 1 is 'dog' in the model \(the data's class 2\), 'cat'",
        ),
        (("cat", "dog"), ("cat", "Dog"), "class 1 is 'dog' in the model, 'Dog' in the data"),
        (("cat", "dog"), ("0", "1"), "class 0 is 'cat' in the model, '0' in the data"),
    ],
)
def test_the_first_class_that_differs_is_named(model: Any, data: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        check_classes(model, data)


def test_class_names_come_from_the_recipe_or_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\n\ndog\n", encoding="utf-8")
    assert class_names((), tmp_path / "names.txt") == ("cat", "dog")
    assert class_names(("a",), None) == ("a",)
    assert class_names((), None) == ()


@pytest.mark.parametrize(
    "name, kind",
    [
        ("a.NPZ", "npz"),
        ("a.csv", "csv"),
        ("a.jsonl", "jsonl"),
        ("train.tfrecord-00000-of-00004", "tfrecord"),
        ("a.tfrecords", "tfrecord"),
        ("flowers", "folder"),
        ("a.tar", None),
    ],
)
def test_a_path_shows_its_dataset(tmp_path: Path, name: str, kind: str | None) -> None:
    assert dataset_kind(tmp_path / name) == kind
