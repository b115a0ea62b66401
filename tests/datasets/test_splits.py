"""Four disjoint, stratified, repeatable splits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from toolkit.core import Dataset, Preprocessing, Records
from toolkit.datasets.splits import Splits, SplitSpec, make_splits, open_splits
from toolkit.errors import InputError


def make_records(
    labels: list[int], subsets: list[str] | None = None, source: str = "main", classes: int = 0
) -> Records:
    """Images of one pixel whose value is the record's number."""
    images = [np.full((1, 1, 3), index % 256, np.uint8) for index in range(len(labels))]
    return Records(
        source=source,
        ids=tuple(f"{source}-{index}" for index in range(len(labels))),
        labels=np.array(labels, np.int64),
        subsets=tuple(subsets or [""] * len(labels)),
        classes=tuple(map(str, range(classes or max(labels) + 1))),
        read=lambda index: images[index],
        content=lambda index: f"{source}{index}".encode(),
    )


def split(records: Records, held_out: Records | None = None, seed: int = 0, **spec: Any) -> Splits:
    return make_splits(records, held_out, SplitSpec.model_validate(spec), Preprocessing(), seed)


MAIN = make_records([0] * 600 + [1] * 300 + [2] * 100)


def test_splits_are_disjoint_stratified_and_complete() -> None:
    made = split(MAIN, selection=0.1, calibration=200, test=0.2)
    sizes = {part.name: (len(part), part.per_class) for part in made.present()}
    assert sizes == {
        "train": (500, (300, 150, 50)),
        "selection": (100, (60, 30, 10)),
        "calibration": (200, (120, 60, 20)),
        "test": (200, (120, 60, 20)),
    }
    ids = [name for part in made.present() for name in part.ids]
    assert len(ids) == len(set(ids)) == 1000
    assert made.warnings == ()


def test_splits_repeat_for_a_seed_and_differ_for_another() -> None:
    one, same, other = (split(MAIN, seed=seed, test=0.2) for seed in (1, 1, 2))
    assert one.test.ids == same.test.ids
    assert one.test.fingerprint == same.test.fingerprint
    assert one.test.ids != other.test.ids


def test_a_draw_does_not_move_when_another_split_changes() -> None:
    assert split(MAIN, selection=10, test=100).selection.ids == split(MAIN, selection=10, test=50).selection.ids  # type: ignore[union-attr]


def test_small_draws_give_every_remainder_away() -> None:
    """7 of 600:300:100 is 4.2 : 2.1 : 0.7, so 4 : 2 : 1."""
    assert split(MAIN, test=7).test.per_class == (4, 2, 1)


def test_any_prefix_is_mixed() -> None:
    assert len(set(split(MAIN, test=300).test.labels[:30].tolist())) == 3


PARTS = make_records([0, 1] * 50, ["train"] * 60 + ["val"] * 20 + ["test"] * 20)


def test_subsets_of_the_data_are_taken_by_name() -> None:
    made = split(PARTS, train="train", selection="val", calibration={"from": "train", "count": 10}, test="test")
    assert [len(part) for part in made.present()] == [50, 20, 10, 20]
    assert made.calibration is not None
    assert made.calibration.per_class == (5, 5)
    assert set(made.test.ids) == {f"main-{index}" for index in range(80, 100)}


def test_fractions_are_of_what_no_subset_took() -> None:
    assert len(split(PARTS, test="test", selection=0.5).selection or ()) == 40


def test_held_out_data_gives_selection_and_test() -> None:
    other = make_records([0, 1, 2] * 40, source="held")
    made = split(MAIN, other, selection=30, calibration=100)
    assert [(part.name, len(part), part.source) for part in made.present()] == [
        ("train", 900, "main"),
        ("selection", 30, "held"),
        ("calibration", 100, "main"),
        ("test", 90, "held"),
    ]


def test_splits_that_were_not_asked_for_are_none() -> None:
    made = split(MAIN, train=None, test="rest")
    assert (made.train, made.selection, made.calibration, len(made.test)) == (None, None, None, 1000)


@pytest.mark.parametrize(
    "spec, problem",
    [
        ({}, 'train and test are both "rest"'),
        ({"test": 2000}, "splits.test: asks for 2000 images, 1000 are left"),
        ({"test": "eval"}, "splits.test: main has no subset 'eval'. Fix: use a fraction"),
        ({"test": None}, "no images are left for the test split"),
        ({"train": 1000, "test": "rest"}, "no images are left for the test split"),
        ({"train": 0.9, "selection": 0.2, "test": "rest"}, "splits.selection: asks for 200 images, 100 are left"),
    ],
)
def test_splits_that_cannot_be_made_are_refused(spec: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        split(MAIN, **spec)


def test_a_wrong_subset_lists_or_suggests_the_right_one() -> None:
    with pytest.raises(InputError, match="did you mean 'test'"):
        split(PARTS, test="tets")
    with pytest.raises(InputError, match=r"splits\.test: asks for 1 images, 0 are left"):
        split(PARTS, selection="test", test="test")


def test_other_classes_in_held_out_data_are_refused() -> None:
    with pytest.raises(InputError, match="its 2 classes differ from the 3 of main"):
        split(MAIN, make_records([0, 1], source="held"))


@pytest.mark.parametrize("part", [0, -1, 1.5, True, "", [1], {"from": "train"}, {"from": "train", "count": 0}])
def test_a_part_that_says_nothing_is_refused_in_one_sentence(part: Any) -> None:
    with pytest.raises(ValidationError, match="give a fraction") as error:
        SplitSpec(test=part)
    assert error.value.error_count() == 1


def test_spec_reads_json_strictly_as_recipes_do() -> None:
    spec = SplitSpec.model_validate_json('{"calibration": {"from": "train", "count": 5}, "test": 0.25}', strict=True)
    assert (spec.test, spec.calibration.subset) == (0.25, "train")  # type: ignore[union-attr]


def copied(records: Records, content: Callable[[int], bytes], **changes: Any) -> Records:
    return replace(records, content=content, **changes)


def test_images_that_the_data_puts_on_two_sides_stay_with_the_one_that_judges() -> None:
    twins = make_records([0] * 20, ["train"] * 10 + ["test"] * 10)
    made = split(copied(twins, lambda index: b"%d" % (index % 13)), train="train", test="test")
    assert set(made.test.ids) == {f"main-{index}" for index in range(10, 20)}
    assert set(made.train.ids if made.train else ()) == {f"main-{index}" for index in range(7, 10)}
    (left,) = made.left_out
    assert (left.reason, left.names) == ("elsewhere", tuple(f"main-{index}" for index in range(7)))
    assert made.warnings[0].startswith("main: 7 images equal images of a split that judges")


def test_equal_images_are_drawn_together() -> None:
    """300 images, each there twice: no split shares one with another, and none is lost."""
    pairs = make_records([0, 1, 2] * 200)
    made = split(copied(pairs, lambda index: b"%d" % (index % 300)), selection=0.1, calibration=100, test=0.2)
    sides = {part.name: {int(name.split("-")[1]) % 300 for name in part.ids} for part in made.present()}
    assert {name: len(side) for name, side in sides.items()} == {
        "train": 160,
        "selection": 30,
        "calibration": 50,
        "test": 60,
    }
    assert len(set.union(*sides.values())) == 300
    assert made.test.per_class == (40, 40, 40)
    assert made.warnings == ()


def test_groups_of_the_data_stay_together_and_odd_sizes_fill_up_with_what_fits() -> None:
    """Persons of 3 images each and 10 single images: 7 of 40 is two persons and one single image."""
    people = tuple(f"person {index // 3}" if index < 30 else "" for index in range(40))
    made = split(replace(make_records([0] * 39 + [1]), groups=people), test=7)
    test = [int(name.split("-")[1]) for name in made.test.ids]
    assert len(test) == 7
    for person in range(10):
        assert sum(index // 3 == person for index in test) in (0, 3)


def test_equal_images_join_groups_into_one() -> None:
    """a-b by name, b-c by content: all three on one side."""
    names = ("p", "p", "", *[""] * 17)
    records = copied(make_records([0] * 20), lambda i: b"same" if i in (1, 2) else b"%d" % i, groups=names)
    for seed in range(10):
        inside = {int(name.split("-")[1]) for name in split(records, seed=seed, test=10).test.ids} & {0, 1, 2}
        assert inside in (set(), {0, 1, 2})


def test_a_group_larger_than_the_split_is_refused() -> None:
    records = replace(make_records([0] * 10), groups=("one",) * 10)
    with pytest.raises(InputError, match=r"splits\.test: asks for 3 images, and every group .* is larger"):
        split(records, test=3)


def test_the_same_image_with_two_labels_is_warned_of() -> None:
    records = copied(make_records([0, 1, 0, 1, 0, 1]), lambda index: b"%d" % (index % 3))
    warning = split(records, test=2).warnings[0]
    assert warning.startswith("main: 3 images equal one with another label, byte for byte (main-3, main-4, main-5)")


def test_held_out_images_are_left_out_of_the_main_data() -> None:
    other = copied(make_records([0, 1, 2] * 10, source="held"), lambda index: f"main{index}".encode())
    made = split(MAIN, other, selection=None, calibration=100)
    assert (len(made.test), len(made.train or ())) == (30, 870)
    assert made.left_out[0].names == tuple(f"main-{index}" for index in range(30))


def test_subsets_no_split_asks_for_are_not_looked_at() -> None:
    def content(index: int) -> bytes:
        if PARTS.subsets[index] == "val":
            raise AssertionError("read although no split has it")
        return b"%d" % index

    assert len(split(copied(PARTS, content), train="train", test="test").test) == 20


def test_ten_classes_of_one_image_each_can_be_split() -> None:
    made = split(make_records(list(range(10))), test=0.2)
    assert (len(made.test), len(made.train or ())) == (2, 8)
    assert any(warning.startswith("test: no image of 8 of 10 classes") for warning in made.warnings)


def test_one_image_alone_is_a_test_split() -> None:
    assert len(split(make_records([0], classes=2), train=None).test) == 1


def test_combinations_of_labels_are_drawn_in_proportion() -> None:
    """60 images with label 0, 30 with both, 10 with none: a fifth is 12, 6 and 2."""
    labels = np.array([[1, 0]] * 60 + [[1, 1]] * 30 + [[0, 0]] * 10, np.uint8)
    records = replace(make_records([0] * 100, classes=2), labels=labels, task="labels")
    test = split(records, test=0.2).test
    assert sorted(test.labels.tolist()) == [[0, 0]] * 2 + [[1, 0]] * 12 + [[1, 1]] * 6
    assert test.per_class == (18, 6)
    assert next(test.batches(5)).targets["label"].shape == (5, 2)


def test_values_are_drawn_without_strata_and_reach_the_batches() -> None:
    values = np.linspace(0, 1, 20, dtype=np.float64).reshape(10, 2)
    records = replace(make_records([0] * 10, classes=2), labels=values, task="values")
    test = split(records, test=5).test
    assert (test.per_class, test.labels.dtype) == ((), np.float32)
    places = [int(name.split("-")[1]) for name in test.ids]
    np.testing.assert_array_equal(next(test.batches(5)).targets["label"], values[places].astype(np.float32))


def test_chosen_splits_open_again_without_reading_an_image() -> None:
    made = split(MAIN, selection=0.1, calibration=200, test=0.2)
    unread = copied(MAIN, lambda index: b"" if index < 0 else 1 / 0)  # type: ignore[return-value]
    assert made.chosen is not None
    again = open_splits(unread, None, made.chosen, Preprocessing())
    assert [part.ids for part in again.present()] == [part.ids for part in made.present()]
    assert made.calibration is not None
    assert made.calibration.drawn == "calibration: 200 of 1000, seed 0"
    with pytest.raises(InputError, match="other images than when the run began"):
        open_splits(replace(MAIN, ids=("new", *MAIN.ids[1:])), None, made.chosen, Preprocessing())


def test_calibration_that_shows_too_little_is_warned_of() -> None:
    few = make_records([0] * 50 + [1] * 50 + [2], classes=5)
    made = split(few, calibration=20, test=0.3)
    assert len(made.warnings) == 3
    assert "calibration: 20 images; fewer than 100" in made.warnings[0]
    assert made.warnings[1:] == (
        "calibration: no image of 3 of 5 classes (2, 3, 4)",
        "test: no image of 3 of 5 classes (2, 3, 4)",
    )


def test_float_images_with_a_scale_are_warned_of() -> None:
    image = np.zeros((1, 1, 3), np.float32)
    floats = Records("f", ("a", "b"), np.array([0, 1]), ("", ""), ("x", "y"), lambda i: image, lambda i: b"%d" % i)
    spec = SplitSpec(train=None)
    assert "already preprocessed" in make_splits(floats, None, spec, Preprocessing(scale=(0.5,)), 0).warnings[0]
    assert make_splits(floats, None, spec, Preprocessing(), 0).warnings == ()


def test_batches_are_preprocessed_and_always_in_the_same_order() -> None:
    made = make_splits(MAIN, None, SplitSpec(test=10), Preprocessing(scale=(2.0,), offset=(1.0,)), 3).test
    assert isinstance(made, Dataset)
    first, second = list(made.batches(4)), list(made.batches(4))
    assert [len(batch.ids) for batch in first] == [4, 4, 2]
    assert sum((batch.ids for batch in first), ()) == made.ids
    for one, two in zip(first, second, strict=True):
        assert np.array_equal(one.inputs["image"], two.inputs["image"])
        numbers = [int(name.split("-")[1]) % 256 for name in one.ids]
        assert one.inputs["image"][:, 0, 0, 0].tolist() == [2.0 * number + 1 for number in numbers]
        assert one.inputs["image"].dtype == np.float32
        assert one.targets["label"].tolist() == [int(MAIN.labels[int(name.split("-")[1])]) for name in one.ids]


def test_a_batch_can_be_changed_without_changing_the_split() -> None:
    made = split(MAIN, test=4).test
    next(made.batches(4)).inputs["image"][:] = -1
    assert next(made.batches(4)).inputs["image"].min() >= 0


def test_images_of_other_sizes_need_a_size() -> None:
    sizes = [np.zeros((1, 1 + index, 3), np.uint8) for index in range(2)]
    mixed = Records("m", ("a", "b"), np.array([0, 1]), ("", ""), ("x", "y"), lambda i: sizes[i], lambda i: b"%d" % i)
    made = make_splits(mixed, None, SplitSpec(train=None), Preprocessing(), 0)
    with pytest.raises(InputError, match="images differ in size"):
        list(made.test.batches(2))


def test_fingerprint_follows_order_label_content_and_preprocessing() -> None:
    base = split(MAIN, train=None, test="rest").test.fingerprint
    labels = MAIN.labels.copy()
    labels[0] = 1
    changed = [
        Records(MAIN.source, MAIN.ids, labels, MAIN.subsets, MAIN.classes, MAIN.read, MAIN.content),
        Records(MAIN.source, MAIN.ids, MAIN.labels, MAIN.subsets, MAIN.classes, MAIN.read, lambda i: b"%d" % i),
    ]
    prints = {split(records, train=None, test="rest").test.fingerprint for records in changed}
    scaled = make_splits(MAIN, None, SplitSpec(train=None), Preprocessing(scale=(2.0,)), 0).test.fingerprint
    shuffled = split(MAIN, seed=9, train=None, test="rest").test.fingerprint
    moved = Records("elsewhere", MAIN.ids, MAIN.labels, MAIN.subsets, MAIN.classes, MAIN.read, MAIN.content)
    assert len({base, scaled, shuffled, *prints}) == 5
    assert split(moved, train=None, test="rest").test.fingerprint == base
