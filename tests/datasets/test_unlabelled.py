"""Images without labels: found in a folder, none of them one of the data's, opened again as they were chosen."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import class_folders, encoded, noise, put

from toolkit.core import Preprocessing
from toolkit.data import load_splits
from toolkit.datasets.unlabelled import Loose
from toolkit.documents import Document
from toolkit.errors import InputError
from toolkit.recipe_reader import parse_recipe


def recipe(folder: Path, unlabelled: str) -> Any:
    text = f"""schema = 1
        export = ["tflite"]
        [data]
        path = "labelled"
        max_corrupt = 0.5
        unlabelled = {unlabelled}
        [data.splits]
        selection = 4
        test = 8"""
    return parse_recipe(Document("r.toml", tomllib.loads(text)), folder)


def splits(made: Any, **more: Any) -> Any:
    return load_splits(made.data, Preprocessing(size=(8, 8)), seed=0, **more)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """20 labelled images, and a folder of others: 2 of the same, 2 equal to each other, a new one, a broken one."""
    class_folders(tmp_path / "labelled", 20)
    loose = tmp_path / "loose"
    for name, number in {"x/copy0": 0, "x/y/copy1": 1, "again": 100, "twin": 100, "z/other": 101}.items():
        put(loose / f"{name}.jpg", encoded(noise(number, (8, 8))))
    put(loose / "broken.png", b"no image")
    put(loose / "notes.txt", b"not looked at")
    return tmp_path


@pytest.mark.parametrize("written", ['"loose"', '{ path = "loose" }', '{ use = "images", path = "loose" }'])
def test_images_that_the_data_has_already_are_left_out_and_named(folder: Path, written: str) -> None:
    found = splits(recipe(folder, written))
    assert found.unlabelled.ids == ("again.jpg", "z/other.jpg")
    assert [split.name for split in found.present()] == ["train", "selection", "test", "unlabelled"]
    broken, equal = found.left_out
    assert broken.reason == "unreadable" and broken.names[0].startswith("broken.png: ")
    assert (equal.reason, equal.names) == ("equal", ("twin.jpg", "x/copy0.jpg", "x/y/copy1.jpg"))
    assert any("3 images without labels equal others or images of the data" in text for text in found.warnings)
    assert any("are not read (1 .txt)" in text for text in found.warnings)
    assert not {*found.unlabelled.digests} & {d for s in found.present()[:3] for d in s.digests}


def test_labelled_splits_are_those_of_the_recipe_without_them(folder: Path) -> None:
    with_them = splits(recipe(folder, '"loose"'))
    without = splits(_plain(folder))
    for one, two in zip(with_them.present()[:3], without.present(), strict=True):
        assert (one.ids, one.fingerprint) == (two.ids, two.fingerprint)
    assert without.unlabelled is None


def _plain(folder: Path) -> Any:
    text = 'schema = 1\nexport = ["tflite"]\n[data]\npath = "labelled"\n[data.splits]\nselection = 4\ntest = 8\n'
    return parse_recipe(Document("r.toml", tomllib.loads(text)), folder)


def test_images_come_preprocessed_and_without_a_label(folder: Path) -> None:
    found = splits(recipe(folder, '"loose"')).unlabelled
    (batch,) = found.batches(8)
    assert batch.inputs["image"].shape == (2, 8, 8, 3) and batch.targets["label"].shape == (2, 0)
    expected = Loose(path=folder / "loose").load()
    np.testing.assert_array_equal(batch.inputs["image"][1], expected.read(expected.ids.index("z/other.jpg")))
    assert found.per_class == () and found.drawn == "unlabelled: 2 of 6"


def test_another_process_opens_what_was_chosen(folder: Path) -> None:
    made = recipe(folder, '"loose"')
    first = splits(made)
    again = splits(made, chosen=first.chosen)
    assert again.unlabelled.ids == first.unlabelled.ids
    assert again.unlabelled.fingerprint == first.unlabelled.fingerprint
    put(folder / "loose" / "late.jpg", encoded(noise(200, (8, 8))))
    with pytest.raises(InputError, match="other images than when the run began"):
        splits(made, chosen=first.chosen)


def test_labels_of_another_dataset_are_not_looked_at(folder: Path) -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (6, 8, 8, 3), np.uint8)
    np.savez(folder / "more.npz", images=pixels, labels=np.array([7, 8, 9, 7, 8, 9]))  # classes the data has not
    for written in ('"more.npz"', '{ use = "npz", path = "more.npz" }'):
        made = recipe(folder, written)
        found = splits(made).unlabelled
        assert len(found) == 6 and found.labels.shape == (6, 0) and found.classes == ()
        resolved = made.data.resolved()["unlabelled"]
        assert (resolved["use"], resolved["path"]) == ("npz", str(folder / "more.npz"))


def test_images_kept_in_another_form_are_recognized_by_their_pixels(folder: Path) -> None:
    """The labelled images are JPEG files, the others the pixels of three of them and of a new one."""
    data = load_splits(_plain(folder).data, Preprocessing(size=(8, 8)), seed=0)
    judged = next(data.test.batches(8)).inputs["image"][:3].astype(np.uint8)
    new = np.asarray(noise(300, (8, 8)))[None]
    np.savez(folder / "more.npz", images=np.concatenate([judged, new, new]), labels=np.zeros(5, np.int64))
    found = splits(recipe(folder, '"more.npz"'))
    assert len(found.unlabelled) == 1
    np.testing.assert_array_equal(next(found.unlabelled.batches(1)).inputs["image"], new)
    assert len(next(left for left in found.left_out if left.reason == "equal").names) == 4


def test_array_of_images_alone_is_read(folder: Path) -> None:
    pixels = np.random.default_rng(6).integers(0, 256, (5, 8, 8, 3), np.uint8)
    np.save(folder / "more.npy", pixels)
    found = splits(recipe(folder, '"more.npy"')).unlabelled
    assert found.ids == ("0", "1", "2", "3", "4")
    np.testing.assert_array_equal(next(found.batches(8)).inputs["image"], pixels)
    np.save(folder / "few.npy", pixels[:0])
    with pytest.raises(InputError, match=r"few\.npy: holds no images"):
        splits(recipe(folder, '"few.npy"'))


def test_resolved_recipe_reads_as_the_same(folder: Path) -> None:
    made = recipe(folder, '"loose"')
    assert made.data.resolved()["unlabelled"] == {"use": "images", "path": str(folder / "loose")}
    again = parse_recipe(Document("manifest.json", made.resolved()), Path("/"))
    assert again.data.unlabelled.component == made.data.unlabelled.component


def test_float_images_do_not_mix_with_pixels(folder: Path) -> None:
    np.savez(
        folder / "more.npz", images=np.arange(6 * 192, dtype="f").reshape(6, 8, 8, 3), labels=np.zeros(6, np.int64)
    )
    with pytest.raises(InputError, match="its images are float arrays, those of the data pixels"):
        splits(recipe(folder, '"more.npz"'))


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ('"gone"', "no such folder. Fix: give a folder of images"),
        ('"labelled"', "none of its 20 images is new"),
        ('"empty"', "holds no images"),
    ],
)
def test_folders_that_give_nothing_are_refused(folder: Path, written: str, problem: str) -> None:
    (folder / "empty").mkdir()
    with pytest.raises(InputError, match=problem):
        splits(recipe(folder, written))


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("3", "data.unlabelled: must be a path or a table, got 3"),
        ('{ use = "images", pth = "loose" }', "data.unlabelled.pth: no such key"),
        ('{ use = "imagess", path = "loose" }', "no such dataset, got 'imagess'"),
    ],
)
def test_mistakes_are_named(folder: Path, written: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        recipe(folder, written)
