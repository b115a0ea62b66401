"""TFRecord files against TensorFlow's own writer, and checksums against their published test vectors."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import encoded, noise, put

from toolkit.core import Preprocessing
from toolkit.datasets.images import decode
from toolkit.datasets.splits import SplitSpec, make_splits
from toolkit.datasets.tfrecord import TFRecord
from toolkit.datasets.tfrecord_file import crc32c, features, int64_list
from toolkit.errors import InputError
from toolkit.overrides import dataset_kind

IMAGES = [encoded(noise(index)) for index in range(6)]


def masked(content: bytes) -> bytes:
    crc = int(crc32c([content])[0])
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def field(number: int, content: bytes) -> bytes:
    length, prefix = len(content), b""
    while length > 127:
        prefix, length = prefix + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + prefix + bytes([length]) + content


def example(**lists: tuple[int, bytes]) -> bytes:
    """A tf.train.Example by hand: name = (kind, what stands in the list)."""
    entries = (field(1, field(1, name.encode()) + field(2, field(kind, held))) for name, (kind, held) in lists.items())
    return field(1, b"".join(entries))


def record(data: bytes) -> bytes:
    head = struct.pack("<Q", len(data))
    return head + masked(head) + data + masked(data)


def simple(index: int, label: int) -> bytes:
    return record(example(image=(1, field(1, IMAGES[index])), label=(3, field(1, bytes([label])))))


def dataset(path: Path, **options: Any) -> TFRecord:
    return TFRecord(path=path, image="image", label="label", **options)


# ---------------------------------------------------------------- checksums


def test_crc32c_matches_the_test_vectors_of_rfc_3720() -> None:
    vectors = [
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
        (b"123456789", 0xE3069283),
    ]
    assert crc32c([content for content, _ in vectors]).tolist() == [crc for _, crc in vectors]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.binary(max_size=1200), min_size=1, max_size=6))
def test_crc32c_is_what_a_bit_by_bit_division_gives(contents: list[bytes]) -> None:
    def plain(content: bytes) -> int:
        register = 0xFFFFFFFF
        for byte in content:
            register ^= byte
            for _ in range(8):
                register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
        return register ^ 0xFFFFFFFF

    assert crc32c(contents).tolist() == [plain(content) for content in contents]


# ---------------------------------------------------------------- records


def test_tfrecord_reads_images_and_labels(tmp_path: Path) -> None:
    path = put(tmp_path / "data.tfrecord", simple(0, 2) + simple(1, 0) + simple(2, 1))
    records = dataset(path).load()
    assert (records.labels.tolist(), records.classes) == ([2, 0, 1], ("0", "1", "2"))
    assert records.ids == ("data.tfrecord/0", "data.tfrecord/1", "data.tfrecord/2")
    assert [records.content(index) for index in range(3)] == IMAGES[:3]
    np.testing.assert_array_equal(records.read(2), decode(IMAGES[2], ""))
    assert records.faults() == {}
    assert dataset_kind(path) == "tfrecord"


def test_tfrecord_shards_become_subsets(tmp_path: Path) -> None:
    put(tmp_path / "train.tfrecord-00000-of-00002", simple(0, 0))
    put(tmp_path / "train.tfrecord-00001-of-00002", simple(1, 1) + simple(2, 0))
    put(tmp_path / "test.tfrecord-00000-of-00001", simple(3, 1))
    put(tmp_path / "notes.txt", b"no records")
    records = dataset(tmp_path).load()
    assert records.subsets == ("test", "train", "train", "train")
    assert records.content(3) == IMAGES[2]


def test_tfrecord_labels_may_be_names_many_or_values(tmp_path: Path) -> None:
    names = [example(image=(1, field(1, IMAGES[i])), label=(1, field(1, n))) for i, n in enumerate((b"dog", b"cat"))]
    path = put(tmp_path / "names.tfrecord", b"".join(map(record, names)))
    assert (dataset(path).load().labels.tolist(), dataset(path).load().classes) == ([1, 0], ("cat", "dog"))
    assert dataset(path, task="labels").load().labels.tolist() == [[0, 1], [1, 0]]
    packed = example(image=(1, field(1, IMAGES[0])), label=(3, field(1, b"\x01\x00\x01")))
    path = put(tmp_path / "many.tfrecord", record(packed))
    assert dataset(path, task="labels").load().labels.tolist() == [[1, 0, 1]]
    with pytest.raises(InputError, match="record 0 has 3 values in 'label'"):
        dataset(path).load()
    floats = example(image=(1, field(1, IMAGES[0])), label=(2, field(1, struct.pack("<2f", 0.5, -2))))
    path = put(tmp_path / "values.tfrecord", record(floats))
    assert dataset(path, task="values").load().labels.tolist() == [[0.5, -2]]


def test_tfrecord_first_label_and_group(tmp_path: Path) -> None:
    one = example(image=(1, field(1, IMAGES[0])), label=(3, field(1, b"\x01")), who=(1, field(1, b"ann")))
    path = put(tmp_path / "a.tfrecord", record(one))
    records = dataset(path, first_label=1, group="who", num_classes=3).load()
    assert (records.labels.tolist(), records.groups, len(records.classes)) == ([0], ("ann",), 3)


def test_integers_are_read_packed_or_not_and_may_be_negative() -> None:
    minus = b"\xff" * 9 + b"\x01"
    loose = b"\x08\x05" + b"\x08" + minus
    assert int64_list(loose, (0, len(loose))) == [5, -1]
    packed = field(1, b"\x05" + minus + b"\x80\x01")
    assert int64_list(packed, (0, len(packed))) == [5, -1, 128]


def test_a_record_with_a_wrong_checksum_is_unreadable_and_the_rest_is_read(tmp_path: Path) -> None:
    content = bytearray(simple(0, 0) + simple(1, 1) + simple(2, 0))
    content[len(simple(0, 0)) + 300] ^= 1  # inside the second image
    records = dataset(put(tmp_path / "d.tfrecord", bytes(content))).load()
    assert records.faults() == {1: "its checksum (CRC-32C) does not match"}
    with pytest.raises(InputError, match=r"1 of 3 images cannot be read.*d\.tfrecord/1: its checksum"):
        make_splits(records, None, SplitSpec(test=1), Preprocessing(), 0)


@pytest.mark.parametrize(
    "content, problem",
    [
        (b"", "holds no records"),
        (simple(0, 0)[:-7], "ends within record 0"),
        (simple(0, 0) + simple(1, 0)[:5], "record 1 at byte .* has no valid length"),
        (b"\x1f\x8b" + bytes(40), "record 0 at byte 0 has no valid length. Fix: give whole, uncompressed"),
        (record(b"\xff\xff\xff"), "record 0: is no tf.train.Example"),
        (record(example(picture=(1, field(1, b"x")))), "has no bytes feature 'image'. Fix: name one of .*: picture"),
        (record(example(image=(1, field(1, b"x")))), "has no feature 'label'. Fix: name one of its features: image"),
        (record(example(image=(1, b""), label=(3, field(1, b"\x00")))), "holds 0 images"),
    ],
)
def test_tfrecord_names_what_is_wrong(tmp_path: Path, content: bytes, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        dataset(put(tmp_path / "d.tfrecord", content)).load()


def test_tfrecord_paths_without_records_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no \.tfrecord files"):
        dataset(tmp_path).load()
    with pytest.raises(InputError, match="no such file or folder"):
        dataset(tmp_path / "none").load()


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_example_or_an_error(data: bytes) -> None:
    try:
        features(data, (0, len(data)))
    except (ValueError, UnicodeDecodeError):
        return


def test_tfrecord_agrees_with_tensorflow(tmp_path: Path) -> None:
    """Files as TensorFlow writes them, features in its order, checksums its own."""
    import tensorflow as tf

    path = tmp_path / "tf.tfrecord"
    with tf.io.TFRecordWriter(str(path)) as writer:
        for index, image in enumerate(IMAGES):
            held = {
                "image/encoded": tf.train.Feature(bytes_list=tf.train.BytesList(value=[image])),
                "image/class/label": tf.train.Feature(int64_list=tf.train.Int64List(value=[index % 3])),
                "image/height": tf.train.Feature(int64_list=tf.train.Int64List(value=[24])),
                "score": tf.train.Feature(float_list=tf.train.FloatList(value=[0.5, index])),
            }
            writer.write(tf.train.Example(features=tf.train.Features(feature=held)).SerializeToString())
    records = TFRecord(path=path).load()
    assert (records.labels.tolist(), records.faults()) == ([0, 1, 2, 0, 1, 2], {})
    assert [records.content(index) for index in range(6)] == IMAGES
    values = TFRecord(path=path, label="score", task="values").load()
    assert values.labels.tolist() == [[0.5, index] for index in range(6)]
