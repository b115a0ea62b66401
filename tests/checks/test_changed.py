"""Which images changed, counted by hand on five of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from toolkit.checks.accuracy import Predictions
from toolkit.checks.changed import Tally, find


class Images:
    """Five images of three classes, or of three labels."""

    name, fingerprint, classes, task = "test", "f00d", ("cat", "dog", "owl"), "classes"
    ids = ("a", "b", "c", "d", "e")

    def __init__(self, labels: Any) -> None:
        self.labels = np.array(labels)

    def __len__(self) -> int:
        return len(self.labels)


DATA: Any = Images([0, 1, 2, 0, 1])
NAN = float("nan")


def _scores(*rows: tuple[float, float, float]) -> Any:
    return np.log(np.array(rows, np.float32))


ORIGINAL = Predictions(
    "original",
    _scores((0.8, 0.1, 0.1), (0.1, 0.8, 0.1), (0.6, 0.3, 0.1), (0.8, 0.1, 0.1), (0.2, 0.2, 0.6)),
    "logits",
)
PHONE = Predictions(  # a: kept; b: lost at 60%; c: gained at 50%; d: lost at 90%; e: wrong in another way
    "phone.tflite",
    _scores((0.7, 0.2, 0.1), (0.6, 0.3, 0.1), (0.2, 0.3, 0.5), (0.05, 0.9, 0.05), (0.7, 0.2, 0.1)),
    "logits",
    "pi",
)


def test_tally_counts_lost_gained_and_changed() -> None:
    assert find(ORIGINAL, [PHONE], DATA, limit=9).tallies == (Tally("phone.tflite", "pi", 5, 4, 2, 1),)


def test_images_come_lost_ones_first_the_surest_before() -> None:
    found = find(ORIGINAL, [PHONE], DATA, limit=9)
    assert [image.name for image in found.images] == ["d", "b", "e", "c"]
    first = found.images[0]
    assert (first.labels, first.original.decided, first.original.right) == ((0,), (0,), True)
    (answer,) = first.others
    assert (answer.subject, answer.device, answer.decided, answer.right) == ("phone.tflite", "pi", (1,), False)
    assert round(answer.confidence or 0, 6) == 0.9


def test_limit_is_shared_by_the_files_in_turn() -> None:
    other = np.array(ORIGINAL.outputs)
    other[0] = _scores((0.1, 0.8, 0.1))[0]
    tiny = Predictions("tiny.tflite", other, "logits", "pi")
    found = find(ORIGINAL, [PHONE, tiny], DATA, limit=2)
    assert [image.name for image in found.images] == ["d", "a"]
    assert [answer.subject for answer in found.images[1].others] == ["tiny.tflite"]
    assert find(ORIGINAL, [PHONE, tiny], DATA, limit=0).images == ()


def test_nan_decides_nothing_and_is_never_right() -> None:
    outputs = np.array(ORIGINAL.outputs)
    outputs[1, 0] = NAN
    found = find(ORIGINAL, [Predictions("broken.tflite", outputs, "logits", "pi")], DATA, limit=3)
    assert found.tallies == (Tally("broken.tflite", "pi", 5, 1, 1, 0),)
    (answer,) = found.images[0].others
    assert (answer.decided, answer.confidence, answer.right) == ((), None, False)


def test_several_labels_change_with_any_of_them() -> None:
    data: Any = Images([[1, 0, 0], [1, 1, 0]])
    before = Predictions("original", np.array([[0.9, 0.1, 0.1], [0.9, 0.1, 0.1]], np.float32), "sigmoids")
    after = Predictions("x.onnx", np.array([[0.9, 0.1, 0.6], [0.9, 0.8, 0.1]], np.float32), "sigmoids", "pi")
    found = find(before, [after], data, limit=9)
    assert found.tallies == (Tally("x.onnx", "pi", 2, 2, 1, 1),)
    assert [image.others[0].decided for image in found.images] == [(0, 2), (0, 1)]


def test_what_decides_nothing_is_left_out_with_the_reason() -> None:
    vectors = Predictions("original", np.zeros((5, 3), np.float32), "embedding")
    found = find(vectors, [], DATA, limit=9)
    assert (found.images, found.left_out) == ((), "an embedding decides nothing that one image could show")
