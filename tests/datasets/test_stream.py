"""Batches do not depend on threads, end when asked to, keep memory bounded, and raise what a thread raised."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
from pictures import class_folders, put

from toolkit.core import Preprocessing, Records
from toolkit.datasets import stream
from toolkit.datasets.folder import Folder
from toolkit.datasets.preprocess import apply
from toolkit.datasets.stream import Split
from toolkit.errors import InputError

WANTED = Preprocessing(size=(6, 5), scale=(2.0,), offset=(1.0,))


def counted(count: int) -> tuple[Records, list[int]]:
    """Records of one pixel, and the list of those read so far."""
    read: list[int] = []

    def pixel(index: int) -> np.ndarray:
        read.append(index)
        return np.full((1, 1, 3), index % 256, np.uint8)

    ids, labels = tuple(map(str, range(count))), np.zeros(count, np.int64)
    return Records("made", ids, labels, ("",) * count, ("x",), pixel, lambda index: b"%d" % index), read


@pytest.mark.parametrize("threads", [1, 2, 7])
@pytest.mark.parametrize("size", [1, 5, 64])
def test_batches_are_the_same_whatever_the_threads(tmp_path: Path, threads: int, size: int) -> None:
    records = Folder(path=class_folders(tmp_path, 40)).load()
    order = np.random.default_rng(0).permutation(40).tolist()
    split = Split("test", records, order, WANTED, threads=threads)
    for _ in range(2):  # the second time from memory
        batches = list(split.batches(size))
        assert [len(batch.ids) for batch in batches] == [min(size, 40 - start) for start in range(0, 40, size)]
        images = np.concatenate([batch.inputs["image"] for batch in batches])
        expected = np.stack([apply(records.read(index), WANTED) for index in order])
        np.testing.assert_array_equal(images, expected)
        assert [name for batch in batches for name in batch.ids] == [records.ids[index] for index in order]
        assert np.concatenate([b.targets["label"] for b in batches]).tolist() == records.labels[order].tolist()


def test_reading_stays_a_few_batches_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_CACHE_BYTES", 0)
    records, read = counted(1000)
    batches = Split("test", records, range(1000), Preprocessing(), threads=3).batches(10)
    for number in range(1, 6):
        next(batches)
        assert len(read) <= 1 + (number + stream._AHEAD) * 10
    batches.close()  # type: ignore[attr-defined]
    assert len(read) < 100
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


def test_small_images_are_decoded_once_and_large_splits_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    records, read = counted(50)
    split = Split("test", records, range(50), Preprocessing())
    for _ in range(3):
        list(split.batches(8))
    assert sorted(read) == list(range(50))
    monkeypatch.setattr(stream, "_CACHE_BYTES", 50 * 3 - 1)
    records, read = counted(50)
    split = Split("test", records, range(50), Preprocessing())
    for _ in range(2):
        list(split.batches(8))
    assert len(read) >= 100


def test_what_a_thread_raises_reaches_the_reader(tmp_path: Path) -> None:
    records = Folder(path=class_folders(tmp_path, 30)).load()
    put(tmp_path / records.ids[20], b"changed meanwhile")
    split = Split("test", records, range(30), WANTED)
    with pytest.raises(InputError, match=records.ids[20]):
        list(split.batches(8))


def test_an_empty_split_has_no_batches() -> None:
    assert list(Split("test", counted(5)[0], (), Preprocessing()).batches(4)) == []
