"""CSV and JSON-lines lists: labels that hold together, values, groups, and one clear line for what is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import encoded, noise, put
from pydantic import ValidationError

from toolkit.core import Records
from toolkit.datasets.csv import Csv
from toolkit.datasets.jsonl import Jsonl
from toolkit.errors import InputError


def images(folder: Path, count: int = 3) -> None:
    for index in range(count):
        put(folder / f"{index}.jpg", encoded(noise(index)))


def csv(folder: Path, text: str, **options: Any) -> Records:
    images(folder)
    (folder / "list.csv").write_text(text, encoding="utf-8")
    return Csv(path=folder / "list.csv", **options).load()


def jsonl(folder: Path, *lines: Any, **options: Any) -> Records:
    images(folder)
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines)
    (folder / "list.jsonl").write_text(text, encoding="utf-8")
    return Jsonl(path=folder / "list.jsonl", **options).load()


BOTH = [[1, 1], [0, 0], [0, 1]]


def test_csv_column_lists_labels_that_hold_together(tmp_path: Path) -> None:
    records = csv(tmp_path, "file,tags\n0.jpg,cat; dog\n1.jpg,\n2.jpg,dog\n", labels=["tags"])
    assert (records.task, records.classes, records.labels.tolist()) == ("labels", ("cat", "dog"), BOTH)
    piped = csv(tmp_path, "file,tags\n0.jpg,cat|dog\n1.jpg,\n2.jpg,dog\n", labels=["tags"], separator="|")
    assert piped.labels.tolist() == BOTH


def test_csv_columns_of_zero_and_one_are_labels(tmp_path: Path) -> None:
    records = csv(tmp_path, "file,cat,dog\n0.jpg,1,1\n1.jpg,0,0\n2.jpg,0,1\n", labels=["cat", "dog"])
    assert (records.task, records.classes, records.labels.tolist()) == ("labels", ("cat", "dog"), BOTH)
    assert records.labels.dtype == np.uint8


def test_csv_columns_of_numbers_are_values(tmp_path: Path) -> None:
    records = csv(tmp_path, "file,x,y\n0.jpg,0.5,-1\n1.jpg,1e3,2\n2.jpg,0,0\n", values=["y", "x"])
    assert (records.task, records.classes) == ("values", ("y", "x"))
    assert records.labels.tolist() == [[-1, 0.5], [2, 1000], [0, 0]]


def test_csv_group_column_reaches_the_records(tmp_path: Path) -> None:
    records = csv(tmp_path, "file,label,person\n0.jpg,0,ann\n1.jpg,1,\n2.jpg,0,ann\n", group="person")
    assert records.groups == ("ann", "", "ann")
    assert csv(tmp_path, "file,label\n0.jpg,0\n1.jpg,1\n").groups == ()


@pytest.mark.parametrize(
    "text, options, problem",
    [
        ("file,cat,dog\n0.jpg,1,2\n", {"labels": ["cat", "dog"]}, "2.0 of image 0 for 'dog' is neither 0 nor 1"),
        ("file,cat,dog\n0.jpg,1,\n", {"labels": ["cat", "dog"]}, "list.csv:2: '' in column 'dog' is no number"),
        ("file,x\n0.jpg,1\n1.jpg,big\n", {"values": ["x"]}, "list.csv:3: 'big' in column 'x' is no number"),
        ("file,x\n0.jpg,1\n1.jpg,nan\n", {"values": ["x"]}, "'x' of image 1 is nan"),
        ("file,x\n0.jpg,1\n", {"values": ["z"]}, "has no column 'z'. Fix: name one of file, x"),
        ("file,tags\n0.jpg,\n", {"labels": ["tags"]}, "no image has a label"),
        ("file,label\n0.jpg,1\n1.jpg,  \n", {}, "list.csv:3: no value in column 'label'"),
        ("file,label\n0.jpg,1\n", {"group": "person"}, "has no column 'person'"),
        ("file,label\n0.jpg,0\n./0.jpg,1\n", {}, "list.csv:3: .* is listed twice"),
    ],
)
def test_csv_names_what_is_wrong(tmp_path: Path, text: str, options: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        csv(tmp_path, text, **options)


def test_csv_takes_one_kind_of_label(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="labels and values exclude each other"):
        Csv(path=tmp_path, labels=("a",), values=("b",))


def test_listed_names_may_hold_spaces_and_any_letters(tmp_path: Path) -> None:
    put(tmp_path / "süße Katze" / "ein Bild 猫.JPG", encoded(noise(9)))
    records = csv(tmp_path, "file,label\nsüße Katze/ein Bild 猫.JPG,Katze\n0.jpg,Hund\n")
    assert records.ids[0] == "süße Katze/ein Bild 猫.JPG"
    assert records.read(0).shape == (24, 32, 3)


# ---------------------------------------------------------------- JSON lines


def test_jsonl_gives_classes_subsets_and_groups(tmp_path: Path) -> None:
    records = jsonl(
        tmp_path,
        {"file": "0.jpg", "label": "dog", "subset": "train", "group": "p"},
        "",
        {"file": "1.jpg", "label": "cat", "width": 32},
    )
    assert (records.ids, records.classes, records.labels.tolist()) == (("0.jpg", "1.jpg"), ("cat", "dog"), [1, 0])
    assert (records.subsets, records.groups, records.task) == (("train", ""), ("p", ""), "classes")
    np.testing.assert_array_equal(records.read(1).shape, (24, 32, 3))
    assert records.content(0) == (tmp_path / "0.jpg").read_bytes()


def test_jsonl_indexes_take_names_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\nbird\n")
    lines = ({"file": "0.jpg", "label": 1}, {"file": "1.jpg", "label": 0})
    records = jsonl(tmp_path, *lines, classes_file=tmp_path / "names.txt")
    assert (records.labels.tolist(), records.classes) == ([1, 0], ("cat", "dog", "bird"))
    assert jsonl(tmp_path, *lines).classes == ("0", "1")


def test_jsonl_gives_labels_and_values(tmp_path: Path) -> None:
    tags = [["dog", "cat"], [], ["dog"]]
    records = jsonl(tmp_path, *({"file": f"{i}.jpg", "labels": held} for i, held in enumerate(tags)))
    assert (records.task, records.classes, records.labels.tolist()) == ("labels", ("cat", "dog"), BOTH)
    records = jsonl(tmp_path, {"file": "0.jpg", "values": {"x": 1, "y": 0.5}})
    assert (records.task, records.classes, records.labels.tolist()) == ("values", ("x", "y"), [[1, 0.5]])
    assert jsonl(tmp_path, {"file": "0.jpg", "values": [3, 4.5]}).labels.tolist() == [[3, 4.5]]


@pytest.mark.parametrize(
    "lines, problem",
    [
        ((), "lists no images"),
        (("{broken",), "list.jsonl:1: is no JSON"),
        (("[1]",), "list.jsonl:1: must be an object, got"),
        (({"label": 1},), "list.jsonl:1: 'file' must be text, got None"),
        (({"file": 3, "label": 1},), "'file' must be text, got 3"),
        (({"file": "0.jpg"},), "list.jsonl:1: has none of label, labels, values"),
        (({"file": "0.jpg", "label": 1, "values": [1]},), "has 'label' and 'values'"),
        (({"file": "0.jpg", "label": 1}, {"file": "1.jpg", "labels": []}), "list.jsonl:2: has 'labels' of"),
        (({"file": "0.jpg", "label": 1}, {"file": "1.jpg", "label": "a"}), "list.jsonl:2: 'label' must be"),
        (({"file": "0.jpg", "label": True},), "'label' must be a name, or an index in all lines, got True"),
        (({"file": "0.jpg", "label": ""},), "'label' must be"),
        (({"file": "0.jpg", "label": -1},), "label -1 of image 0 is out of range"),
        (({"file": "0.jpg", "labels": "cat"},), "'labels' must be an array of names, got 'cat'"),
        (({"file": "0.jpg", "values": [1]}, {"file": "1.jpg", "values": [1, 2]}), "list.jsonl:2: 'values' must be"),
        (({"file": "0.jpg", "values": ["a"]},), "'values' must be numbers"),
        (('{"file": "0.jpg", "values": [NaN]}',), "'0' of image 0 is nan"),
        (({"file": "9.jpg", "label": 1},), r"list.jsonl:1: no such file: .*9\.jpg. Fix: set `root`"),
    ],
)
def test_jsonl_names_file_and_line_of_what_is_wrong(tmp_path: Path, lines: tuple[Any, ...], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        jsonl(tmp_path, *lines)


def test_jsonl_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = put(tmp_path / "list.jsonl", b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is not UTF-8 text"):
        Jsonl(path=path).load()
    with pytest.raises(InputError, match="no such file"):
        Jsonl(path=tmp_path / "none.jsonl").load()
