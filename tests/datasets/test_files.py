"""npz, folder, CSV and digits: what is found, and one clear line for what is wrong."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from toolkit.datasets.csv import Csv
from toolkit.datasets.digits import Digits
from toolkit.datasets.folder import Folder
from toolkit.datasets.npz import Npz
from toolkit.errors import InputError, UnavailableError


def picture(value: int, size: tuple[int, int] = (3, 2), kind: str = "PNG", mode: str = "RGB") -> bytes:
    stream = io.BytesIO()
    Image.new(mode, size[::-1], value if mode == "L" else (value, 0, 255 - value)).save(stream, kind)
    return stream.getvalue()


def npz(path: Path, **arrays: Any) -> Npz:
    np.savez(path / "data.npz", **arrays)
    return Npz(path=path / "data.npz")


IMAGES = np.arange(4 * 2 * 3 * 3, dtype=np.uint8).reshape(4, 2, 3, 3)


# ---------------------------------------------------------------- npz


@pytest.mark.parametrize("keys", [("images", "labels"), ("x", "y"), ("X", "targets")])
def test_npz_finds_images_and_labels_by_their_usual_names(tmp_path: Path, keys: tuple[str, str]) -> None:
    records = npz(tmp_path, **{keys[0]: IMAGES, keys[1]: [0, 2, 1, 0]}).load()
    assert records.labels.tolist() == [0, 2, 1, 0]
    assert records.labels.dtype == np.int64
    assert (records.classes, records.subsets, records.ids) == (("0", "1", "2"), ("",) * 4, ("0", "1", "2", "3"))
    assert np.array_equal(records.read(2), IMAGES[2])
    assert records.content(0) != records.content(1)


def test_npz_pairs_become_subsets_and_gray_images_get_a_channel(tmp_path: Path) -> None:
    gray = IMAGES[..., 0]
    records = npz(tmp_path, x_train=gray[:3], y_train=[[0], [1], [1]], x_test=gray[3:], y_test=[[0]]).load()
    assert records.subsets == ("train", "train", "train", "test")
    assert records.ids == ("train/0", "train/1", "train/2", "test/0")
    assert records.read(3).shape == (2, 3, 1)
    assert np.array_equal(records.read(3)[..., 0], gray[3])


def test_npz_named_arrays_and_class_names(tmp_path: Path) -> None:
    found = npz(tmp_path, a=IMAGES, x=IMAGES[:1], b=["cat", "dog", "cat", "dog"], classes=["dog", "cat"])
    records = found.model_copy(update={"images": "a", "labels": "b"}).load()
    assert (records.labels.tolist(), records.classes) == ([1, 0, 1, 0], ("dog", "cat"))


@pytest.mark.parametrize("closed", [True, False])
def test_npz_reads_encoded_images(tmp_path: Path, closed: bool) -> None:
    files = [picture(value) for value in (10, 20, 30)]
    offsets = np.cumsum([0, *map(len, files)])
    flat = np.frombuffer(b"".join(files), np.uint8)
    found = npz(
        tmp_path,
        jpeg=flat,
        offsets=offsets if closed else offsets[:-1],
        labels=[1, 0, 1],
        classes=["a", "b"],
        split=["train", "test", "train"],
        names=["p", "q", "r"],
    )
    records = found.load()
    assert records.read(2).tolist() == np.broadcast_to([30, 0, 225], (3, 2, 3)).tolist()
    assert records.content(1) == files[1]
    assert (records.ids, records.subsets, records.classes) == (("p", "q", "r"), ("train", "test", "train"), ("a", "b"))


def test_npz_floats_are_kept(tmp_path: Path) -> None:
    records = npz(tmp_path, x=IMAGES / 7, y=[0, 1, 0, 1]).load()
    assert records.read(1).dtype == np.float32
    np.testing.assert_allclose(records.read(1), IMAGES[1] / 7, rtol=1e-6)


NAN = IMAGES.astype(np.float32)
NAN[2, 0, 0, 0] = np.nan


@pytest.mark.parametrize(
    "arrays, problem",
    [
        ({"a": IMAGES, "b": [0]}, "cannot tell images and labels among its arrays: a, b"),
        ({"x": IMAGES, "images": IMAGES, "y": [0, 1, 0, 1]}, "cannot tell"),
        ({"x": IMAGES, "y": [0, 1]}, "4 images in 'x' but 2 labels in 'y'"),
        ({"x": IMAGES, "y": [0, -1, 0, 1]}, "label -1 of image 1"),
        ({"x": IMAGES, "y": [0, 1, 0, 3], "classes": ["a", "b"]}, "label 3 of image 3 is out of range for 2 classes"),
        ({"x": IMAGES, "y": [0, 0.5, 0, 1]}, "not class indexes"),
        ({"x": IMAGES, "y": np.eye(4)}, "labels have shape"),
        ({"x": IMAGES, "y": ["a", "b", "c", "a"], "classes": ["a", "b"]}, "label 'c' of image 2"),
        ({"x": IMAGES[:0], "y": np.zeros(0, int)}, "holds no images"),
        ({"x": NAN, "y": [0, 1, 0, 1]}, "image 2 holds NaN"),
        ({"x": IMAGES.astype(np.int32), "y": [0, 1, 0, 1]}, "images are int32"),
        ({"x": np.zeros((4, 3, 5, 5), np.uint8), "y": [0, 1, 0, 1]}, "channels first"),
        ({"x": np.zeros((4, 3), np.uint8), "y": [0, 1, 0, 1]}, "images have shape"),
        ({"x": IMAGES, "y": [0, 1, 0, 1], "split": ["train"]}, "`split` has shape"),
        ({"jpeg": np.zeros(9, np.uint8), "labels": [0]}, "no `offsets`"),
        ({"jpeg": np.zeros(9, np.uint8), "offsets": [0, 20], "labels": [0]}, "do not rise within"),
    ],
)
def test_npz_names_what_is_wrong(tmp_path: Path, arrays: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        npz(tmp_path, **arrays).load()


def test_npz_refuses_missing_foreign_and_pickled_files(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with pytest.raises(InputError, match="no such file"):
        Npz(path=path).load()
    path.write_bytes(b"not a zip file at all")
    with pytest.raises(InputError, match=r"cannot be read as an \.npz"):
        Npz(path=path).load()
    np.savez(path, x=np.array([{}], dtype=object), y=[0])
    with pytest.raises(InputError, match=r"cannot be read as an \.npz"):
        Npz(path=path).load()
    np.save(tmp_path / "one.npy", IMAGES)
    with pytest.raises(InputError, match="single array"):
        Npz(path=tmp_path / "one.npy").load()
    with pytest.raises(InputError, match="no array 'z'"):
        npz(tmp_path, x=IMAGES, y=[0, 1, 0, 1]).model_copy(update={"images": "z"}).load()


def test_npz_number_of_classes_can_be_given(tmp_path: Path) -> None:
    found = npz(tmp_path, x=IMAGES, y=[0, 1, 0, 1]).model_copy(update={"num_classes": 5})
    assert found.load().classes == ("0", "1", "2", "3", "4")


# ---------------------------------------------------------------- folder


def put(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)


def test_folder_sorts_classes_and_files(tmp_path: Path) -> None:
    put(tmp_path / "b" / "2.png", picture(2))
    put(tmp_path / "b" / "1.JPG", picture(1, kind="JPEG"))
    put(tmp_path / "a" / "deep" / "3.png", picture(9, mode="L"))
    put(tmp_path / "a" / "notes.txt", b"no image")
    (tmp_path / "c").mkdir()
    (tmp_path / ".hidden").mkdir()
    records = Folder(path=tmp_path).load()
    assert records.ids == ("a/deep/3.png", "b/1.JPG", "b/2.png")
    assert (records.labels.tolist(), records.classes) == ([0, 1, 1], ("a", "b", "c"))
    assert records.read(0).tolist() == np.full((3, 2, 1), 9).tolist()
    assert records.read(2).shape == (3, 2, 3)
    assert records.content(2) == picture(2)


def test_folder_subsets_share_their_classes(tmp_path: Path) -> None:
    put(tmp_path / "train" / "a" / "1.png", picture(1))
    put(tmp_path / "train" / "b" / "1.png", picture(2))
    put(tmp_path / "test" / "b" / "1.png", picture(3))
    records = Folder(path=tmp_path).load()
    assert records.subsets == ("test", "train", "train")
    assert (records.labels.tolist(), records.classes) == ([1, 0, 1], ("a", "b"))


def test_folder_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        Folder(path=tmp_path / "none").load()
    with pytest.raises(InputError, match="no images"):
        Folder(path=tmp_path).load()
    put(tmp_path / "train" / "a" / "1.png", picture(1)[:40])
    with pytest.raises(InputError, match=r"1\.png: cannot be read as an image"):
        Folder(path=tmp_path).load().read(0)
    put(tmp_path / "extra" / "1.png", picture(1))
    with pytest.raises(InputError, match="subsets and other folders: extra"):
        Folder(path=tmp_path).load()


def test_folder_takes_any_letters_case_and_links_but_no_hidden_files(tmp_path: Path) -> None:
    put(tmp_path / "data" / "süße Katze" / "ein Bild 猫.JPeG", picture(1, kind="JPEG"))
    put(tmp_path / "data" / "a" / "._1.jpg", b"what another system leaves behind")
    put(tmp_path / "data" / "a" / "1.GIF", picture(2, kind="GIF"))
    put(tmp_path / "elsewhere" / "1.png", picture(3))
    (tmp_path / "data" / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data" / "a" / "loop").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "a" / "gone.png").symlink_to(tmp_path / "nowhere")
    records = Folder(path=tmp_path / "data").load()
    assert records.ids == ("a/1.GIF", "a/gone.png", "linked/1.png", "süße Katze/ein Bild 猫.JPeG")
    assert records.labels.tolist() == [0, 0, 1, 2]
    with pytest.raises(InputError, match=r"gone\.png: cannot be read: No such file"):
        records.content(1)


def test_folder_says_which_files_it_does_not_read(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1.png", picture(1))
    for name in ("1.tif", "2.TIF", "readme"):
        put(tmp_path / "a" / name, b"")
    (note,) = Folder(path=tmp_path).load().notes
    assert note.endswith("are not read (1 without suffix, 2 .tif)")


def test_one_image_is_a_dataset(tmp_path: Path) -> None:
    put(tmp_path / "a" / "1.png", picture(1))
    assert len(Folder(path=tmp_path).load()) == 1


def test_deep_images_are_refused_not_clipped(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((2, 2), 40_000, np.uint16)).save(tmp_path / "a" / "1.png")
    with pytest.raises(InputError, match="more than 8 bits"):
        Folder(path=tmp_path).load().read(0)


# ---------------------------------------------------------------- csv


def table(path: Path, text: str, files: tuple[str, ...] = ("1.png", "2.png", "3.png")) -> Csv:
    for value, name in enumerate(files):
        put(path / name, picture(value))
    (path / "labels.csv").write_text(text, encoding="utf-8")
    return Csv(path=path / "labels.csv")


def test_csv_of_a_sample_keeps_the_full_range_of_classes(tmp_path: Path) -> None:
    found = table(tmp_path, "file,class_index,name,role\n1.png,7,cock,eval\n2.png,0,tench,calib\n")
    records = found.model_copy(update={"num_classes": 10}).load()
    assert (records.ids, records.subsets, records.labels.tolist()) == (("1.png", "2.png"), ("eval", "calib"), [7, 0])
    assert (len(records.classes), records.classes[7], records.classes[1]) == (10, "cock", "1")
    assert records.read(1)[0, 0].tolist() == [1, 0, 254]


def test_csv_takes_class_names_and_a_list_of_them(tmp_path: Path) -> None:
    found = table(tmp_path, "file,label\n1.png,dog\n2.png,cat\n")
    assert found.load().classes == ("cat", "dog")
    (tmp_path / "classes.txt").write_text("bird\ndog\ncat\n")
    records = found.model_copy(update={"classes_file": tmp_path / "classes.txt"}).load()
    assert (records.classes, records.labels.tolist()) == (("bird", "dog", "cat"), [1, 2])
    (tmp_path / "classes.csv").write_text("class_index,name\n1,cat\n0,dog\n")
    records = found.model_copy(update={"classes_file": tmp_path / "classes.csv"}).load()
    assert (records.classes, records.labels.tolist()) == (("dog", "cat"), [0, 1])


def test_csv_root_and_columns_can_be_named(tmp_path: Path) -> None:
    put(tmp_path / "images" / "9.png", picture(9))
    found = table(tmp_path, "picture;kind\n".replace(";", ",") + "9.png,1\n")
    records = found.model_copy(update={"root": tmp_path / "images", "file": "picture", "label": "kind"}).load()
    assert (len(records), records.classes) == (1, ("0", "1"))


@pytest.mark.parametrize(
    "text, problem",
    [
        ("", "lists no images"),
        ("file,label\n", "lists no images"),
        ("path,label\n1.png,0\n", "no column 'file'. Fix: name one of path, label"),
        ("file,other\n1.png,0\n", "no column 'class_index'"),
        ("file,label\n9.png,0\n", r"labels.csv:2: no such file: .*9.png"),
        ("file,label\n1.png,0\n1.png,1\n", "labels.csv:3: .* is listed twice"),
        ("file,label\n1.png\n", "labels.csv:2: does not have the header's 2 values"),
        ("file,label\n1.png,0,5\n", "labels.csv:2: does not have the header's 2 values"),
        ("file,label\n1.png,\n", "labels.csv:2: no value in column 'label'"),
        ("file,label,name\n1.png,0,cat\n2.png,0,dog\n", "labels.csv:3: class 0 is both 'cat' and 'dog'"),
    ],
)
def test_csv_names_file_and_line_of_what_is_wrong(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        table(tmp_path, text).load()


def test_csv_label_out_of_range_of_the_classes_is_refused(tmp_path: Path) -> None:
    found = table(tmp_path, "file,label\n1.png,0\n2.png,5\n").model_copy(update={"num_classes": 3})
    with pytest.raises(InputError, match="label 5 of image 1 is out of range for 3 classes"):
        found.load()


# ---------------------------------------------------------------- digits


def test_digits_are_the_real_ones() -> None:
    """UCI's test set: 1,797 images, 178 zeros, values 0..16."""
    records = Digits().load()
    assert (len(records), int((records.labels == 0).sum()), len(records.classes)) == (1797, 178, 10)
    first = records.read(0)
    assert (first.shape, first.dtype, first[0, :, 0].tolist()) == ((8, 8, 1), np.uint8, [0, 0, 5, 13, 9, 1, 0, 0])


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(UnavailableError, match="pip install scikit-learn"):
        Digits().load()
