"""NumPy arrays on disk: found, mapped, not loaded, one clear line for what is wrong; columns of labels in npz."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.core import Preprocessing
from toolkit.datasets.npy import Npy
from toolkit.datasets.npz import Npz
from toolkit.datasets.splits import SplitSpec, make_splits
from toolkit.errors import InputError
from toolkit.overrides import dataset_kind

IMAGES = np.arange(6 * 4 * 5 * 3, dtype=np.uint8).reshape(6, 4, 5, 3)


def saved(folder: Path, images: Any = IMAGES, labels: Any = (0, 1, 2, 0, 1, 2), **options: Any) -> Npy:
    np.save(folder / "images.npy", images)
    np.save(folder / "labels.npy", np.asarray(labels))
    return Npy(path=folder, **options)


def test_npy_reads_images_and_labels(tmp_path: Path) -> None:
    records = saved(tmp_path).load()
    assert (records.ids, records.labels.tolist()) == (tuple("012345"), [0, 1, 2, 0, 1, 2])
    np.testing.assert_array_equal(records.read(4), IMAGES[4])
    assert records.content(1) != records.content(2)
    assert dataset_kind(tmp_path) == "npy"


def test_npy_images_stay_on_disk(tmp_path: Path) -> None:
    """A file of 8 GB, all holes: it could not be held twice, and is read in no time."""
    np.lib.format.open_memmap(tmp_path / "images.npy", "w+", np.uint8, (60_000, 224, 224, 3)).flush()
    np.save(tmp_path / "labels.npy", np.arange(60_000) % 3)
    records = Npy(path=tmp_path).load()
    assert (len(records), records.read(59_999).shape) == (60_000, (224, 224, 3))


def test_npy_floats_become_float32_and_gray_images_get_a_channel(tmp_path: Path) -> None:
    records = saved(tmp_path, IMAGES[..., 0].astype(np.float64)).load()
    assert (records.read(0).shape, records.read(0).dtype) == ((4, 5, 1), np.float32)


def test_npy_with_infinite_images_counts_them_as_unreadable(tmp_path: Path) -> None:
    images = IMAGES.astype(np.float32)
    images[3, 0, 0, 0] = np.inf
    records = saved(tmp_path, images).load()
    assert records.faults() == {3: "holds NaN or infinity"}
    with pytest.raises(InputError, match=r"1 of 6 images cannot be read.*3: holds NaN"):
        make_splits(records, None, SplitSpec(test=2), Preprocessing(), 0)


def test_npy_takes_names_tasks_and_groups(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("cat\ndog\n")
    np.save(tmp_path / "people.npy", np.array(["a", "a", "b", "b", "c", "c"]))
    many = [[1, 0], [1, 1], [0, 0], [0, 1], [1, 0], [0, 1]]
    options = {"classes_file": tmp_path / "names.txt", "groups": "people.npy"}
    records = saved(tmp_path, labels=many, task="labels", **options).load()
    assert (records.classes, records.labels.tolist()) == (("cat", "dog"), many)
    assert records.groups == ("a", "a", "b", "b", "c", "c")
    values = saved(tmp_path, labels=np.linspace(0, 1, 6), task="values").load()
    assert (values.task, values.labels.shape, values.labels.dtype) == ("values", (6, 1), np.float32)


@pytest.mark.parametrize(
    "images, labels, problem",
    [
        (IMAGES, [0, 1], "6 images in 'images.npy' but 2 labels in 'labels.npy'"),
        (IMAGES.transpose(0, 3, 1, 2), [0] * 6, "seem to have channels first"),
        (IMAGES.astype(np.int32), [0] * 6, "images are int32"),
        (np.array([{}], object), [0], "cannot be read as an .npy file"),
        (np.array(3), [0], "no array of one entry an image"),
        (IMAGES, np.eye(6), "labels have shape"),
    ],
)
def test_npy_names_what_is_wrong(tmp_path: Path, images: Any, labels: Any, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        saved(tmp_path, images, labels).load()


def test_npy_without_its_files_or_cut_short_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"images\.npy: no such file"):
        Npy(path=tmp_path).load()
    dataset = saved(tmp_path)
    content = (tmp_path / "images.npy").read_bytes()
    (tmp_path / "images.npy").write_bytes(content[:-50])
    with pytest.raises(InputError, match=r"images\.npy: cannot be read as an \.npy file"):
        dataset.load()


@pytest.mark.parametrize("task, dtype", [("labels", np.uint8), ("values", np.float32)])
def test_npz_labels_of_several_columns_need_a_task(tmp_path: Path, task: Any, dtype: Any) -> None:
    np.savez(tmp_path / "d.npz", x=IMAGES, y=np.eye(6)[:, :2], classes=["a", "b"], groups=list("uuvvww"))
    records = Npz(path=tmp_path / "d.npz", task=task).load()
    assert (records.task, records.classes, records.labels.dtype) == (task, ("a", "b"), dtype)
    assert records.labels.tolist() == np.eye(6)[:, :2].tolist()
    assert records.groups == tuple("uuvvww")
    with pytest.raises(InputError, match="or say `task`"):
        Npz(path=tmp_path / "d.npz").load()
