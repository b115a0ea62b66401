"""Unreadable images are counted, named and left out; too many are an error. Records must keep what they promise."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import class_folders, encoded, noise, put

from toolkit.core import Preprocessing, Records
from toolkit.datasets.census import CensusSpec, checked, take_census
from toolkit.datasets.folder import Folder
from toolkit.datasets.splits import Splits, SplitSpec, make_splits
from toolkit.errors import InputError

TEST = SplitSpec(test=0.2)


def splits(path: Path, **census: Any) -> Splits:
    return make_splits(Folder(path=path).load(), None, TEST, Preprocessing(), 0, census=CensusSpec(**census))


def test_unreadable_images_are_left_out_named_and_warned_of(tmp_path: Path) -> None:
    class_folders(tmp_path, 200)
    put(tmp_path / "a" / "00000.jpg", b"")
    put(tmp_path / "b" / "00001.jpg", encoded(noise())[:200])
    made = splits(tmp_path)
    assert sum(map(len, made.present())) == 198
    (left,) = made.left_out
    assert left.reason == "unreadable"
    assert [name.partition(":")[0] for name in left.names] == ["a/00000.jpg", "b/00001.jpg"]
    assert "the file is empty" in left.names[0]
    assert made.warnings[0].startswith(f"{tmp_path}: 2 images cannot be read and are left out (a/00000.jpg: ")


def test_too_many_unreadable_images_are_an_error(tmp_path: Path) -> None:
    class_folders(tmp_path, 100)
    for index in (0, 2):
        put(tmp_path / "a" / f"{index:05}.jpg", b"no image")
    with pytest.raises(
        InputError, match=r"2 of 100 images cannot be read, more than 0\.01 of them: a/00000\.jpg: .*no"
    ):
        splits(tmp_path)
    assert sum(map(len, splits(tmp_path, max_corrupt=0.02).present())) == 98
    with pytest.raises(InputError, match=r"1 of 99 images cannot be read, more than 0 of them"):
        (tmp_path / "a" / "00000.jpg").unlink()
        splits(tmp_path, max_corrupt=0)


def test_files_that_cannot_be_opened_are_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root a mode of 000 still opens, so that a link to nowhere and a refusing reader stand for it."""
    class_folders(tmp_path, 4)
    (tmp_path / "a" / "gone.jpg").symlink_to(tmp_path / "nowhere.jpg")
    records = Folder(path=tmp_path).load()

    def content(index: int) -> bytes:
        if index == 0:
            raise InputError("a/00000.jpg", "cannot be read: Permission denied")
        return records.content(index)

    census = take_census(replace(records, content=content), range(5), CensusSpec(max_corrupt=0.5))
    assert census.corrupt == {
        0: "cannot be read: Permission denied",
        2: "cannot be read: No such file or directory",
    }


def test_census_hashes_what_it_is_asked_for_in_order(tmp_path: Path) -> None:
    records = Folder(path=class_folders(tmp_path, 150)).load()
    wanted = list(range(20, 150))
    census = take_census(records, wanted)
    expected = [hashlib.sha256(records.content(index)).digest() for index in wanted]
    assert list(census.digests[20:]) == expected
    assert set(census.digests[:20]) == {b""}


def test_damage_inside_a_scan_is_found_when_every_image_is_decoded(tmp_path: Path) -> None:
    """A JPEG whose Huffman table is gone keeps its structure: only decoding tells."""
    class_folders(tmp_path, 10)
    content = encoded(noise(0, (8, 8)))
    table = content.index(b"\xff\xc4") + 5
    put(tmp_path / "a" / "00000.jpg", content[:table] + bytes(16) + content[table + 16 :])
    with pytest.raises(InputError, match=r"1 of 10 images cannot be read.*a/00000\.jpg"):
        splits(tmp_path, verify="decode")
    made = splits(tmp_path)
    assert sum(map(len, made.present())) == 10
    with pytest.raises(InputError, match=r"00000\.jpg: cannot be read as an image"):
        for split in made.present():
            list(split.batches(4))


def test_animated_images_are_warned_of(tmp_path: Path) -> None:
    class_folders(tmp_path, 9)
    put(tmp_path / "a" / "x.gif", encoded(noise(1, (8, 8)), "GIF", save_all=True, append_images=[noise(2, (8, 8))]))
    assert splits(tmp_path).warnings[0] == "1 images are animated: the first frame of each is used"


RECORDS = Records(
    "made",
    ("a", "b"),
    np.array([0, 1]),
    ("", ""),
    ("x", "y"),
    lambda i: np.zeros((1, 1, 3), np.uint8),
    lambda i: b"%d" % i,
)


@pytest.mark.parametrize(
    "change, problem",
    [
        ({"ids": ("a", "a")}, "two images have the id 'a'"),
        ({"ids": ()}, "holds no images"),
        ({"labels": np.array([0])}, "gives 2 ids but 1 labels"),
        ({"subsets": ("",)}, "gives 2 ids but 1 subsets"),
        ({"groups": ("g",)}, "gives 2 ids but 1 groups"),
        ({"labels": np.array([0, 2])}, "labels are not indexes of its 2 classes"),
        ({"labels": np.array([0.0, 1.0])}, "labels are not indexes"),
        ({"labels": np.array([[0, 2], [1, 1]]), "task": "labels"}, "labels are not 0 or 1"),
        ({"labels": np.zeros((2, 3)), "task": "values"}, r"shape \(2, 3\), not a column for each of 2 names"),
        ({"labels": np.array([[0, 1], [np.nan, 1]]), "task": "values"}, "the values of 'b' are NaN or infinite"),
    ],
)
def test_records_that_do_not_fit_together_are_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        checked(replace(RECORDS, **change))


def test_a_container_that_knows_of_damage_is_believed() -> None:
    faults: Callable[[], dict[int, str]] = lambda: {1: "its checksum does not match"}  # noqa: E731
    census = take_census(replace(RECORDS, faults=faults), (0, 1), CensusSpec(max_corrupt=0.5))
    assert census.named(RECORDS) == ("b: its checksum does not match",)
