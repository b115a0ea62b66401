"""Faults between data and model are named, each by its own witness, and clean ones are left alone.

The networks are made here, of NumPy alone: random filters, the moments they had in training, ridge regression behind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from toolkit.checks.inputs import InputsCheck, examine, images_for
from toolkit.checks.presented import Given, Way, affine_of, given, remedy
from toolkit.core import Preprocessing
from toolkit.datasets.preprocess import PreprocessSpec
from toolkit.engine.moments import Expected, Observed, distances

CLASSES, SIDE = 6, 12


def pictures(count: int, seed: int) -> tuple[Any, Any]:
    """uint8 images (n, 12, 12, 3) under a blue sky, in classes of stripes: three across, three along, some redder."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count)
    row, column = np.mgrid[:SIDE, :SIDE]
    waves = 0.8 + 0.5 * (labels % 3)
    phases = rng.uniform(0, 2 * np.pi, count)
    along = np.where((labels < 3)[:, None, None], row, column)
    stripes = np.sin(along * waves[:, None, None] + phases[:, None, None])[..., None]
    tint = np.array([60.0, 20.0, -30.0]) * ((labels % 2) - 0.3)[:, None]
    sky = np.array([-20.0, 0.0, 40.0]) * (1 - row / SIDE)[..., None]
    bright = rng.normal(115, 18, count)[:, None, None, None]
    images = bright + 35 * stripes + tint[:, None, None, :] + sky + rng.normal(0, 14, (count, SIDE, SIDE, 3))
    return images.clip(0, 255).astype(np.uint8), labels


class Network:
    """Trained on images in one form. witness: whether it remembers what its filters gave."""

    def __init__(self, form: str, seed: int, *, witness: bool = True) -> None:
        self.affine, self.witness = affine_of(form), witness  # type: ignore[arg-type]
        rng = np.random.default_rng(seed)
        self.filters = rng.normal(0, 1, (27, 40))
        images, labels = pictures(1500, seed + 1000)
        images = images[..., ::-1] if form == "caffe" else images
        values = self._filtered(images * np.asarray(self.affine[0]) + np.asarray(self.affine[1]))
        flat = values.reshape(-1, values.shape[-1])
        self.mean, self.variance = flat.mean(axis=0), flat.var(axis=0)
        features = self._features(values)
        wanted = np.eye(CLASSES)[labels] * 8 - 4
        gram = features.T @ features + 3.0 * np.eye(features.shape[1])
        self.head = np.linalg.solve(gram, features.T @ wanted)

    def observe(self, inputs: Any) -> Observed:
        values = self._filtered(inputs)
        outputs = self._features(values) @ self.head
        if not self.witness:
            return Observed(outputs)
        expected = (Expected("bn", self.mean, self.variance),)
        axes = (1, 2)
        return Observed(outputs, expected, (values.mean(axis=axes),), ((values**2).mean(axis=axes),))

    def _filtered(self, inputs: Any) -> Any:
        windows = np.lib.stride_tricks.sliding_window_view(np.asarray(inputs, np.float64), (3, 3), axis=(1, 2))
        return windows.reshape(*windows.shape[:3], 27) @ self.filters

    def _features(self, values: Any) -> Any:
        normal = (values - self.mean) / np.sqrt(self.variance)
        active = np.maximum(normal, 0)
        parts = [active.mean(axis=(1, 2)), (active**2).mean(axis=(1, 2)), np.ones((len(values), 1))]
        return np.concatenate(parts, axis=1)


network = cache(Network)


def contract(preprocess: Any) -> Preprocessing:
    return PreprocessSpec.model_validate(preprocess).resolve((None, SIDE, SIDE, 3))


def look(
    form: str, images: Any, labels: Any, preprocess: Any = None, seed: int = 0, *, witness: bool = True
) -> InputsCheck:
    """What is found where a network of this form gets the images by this preprocessing."""
    now = given(images, contract(preprocess or form))
    return examine(now, labels, "logits", network(form, seed, witness=witness).observe)


def reshaped(images: Any) -> Any:
    """Whole channels one after another, taken for pixels: what `reshape` does where `transpose` was meant."""
    n, height, width, channels = images.shape
    return images.transpose(0, 3, 1, 2).reshape(n, height, width, channels)


FAULTS: dict[str, tuple[str, str, Callable[[Any, Any], tuple[Any, Any]], Any, str, str]] = {
    # network's form, what, the fault in the data, the recipe's preprocess, words, remedy
    "bgr": ("raw", "color", lambda x, y: (x[..., ::-1], y), None, "red and blue are swapped", 'color = "bgr"'),
    "missing scale": ("signed", "scale", lambda x, y: (x, y), "raw", "the scale is missing", '"signed"'),
    "missing scale of 0..1": ("unit", "scale", lambda x, y: (x, y), "raw", "the scale is missing", '"unit"'),
    "double scale": ("raw", "scale", lambda x, y: (x, y), "unit", "scaled twice", '= "raw"'),
    "double scale, floats": ("raw", "scale", lambda x, y: (x / np.float32(255), y), None, "scaled twice", "uint8"),
    "scaled before": (
        *("signed", "scale", lambda x, y: ((x / np.float32(255)) / np.float32(127.5) - 1, y)),
        *(None, "scaled twice", "uint8"),
    ),
    "wrong mean": (
        *("raw", "scale", lambda x, y: (x, y), {"scale": 1.0, "offset": [-123.68, -116.779, -103.939]}),
        *("mean or scale", '= "raw"'),
    ),
    "offset left out": (
        *("signed", "scale", lambda x, y: (x, y), {"scale": 1 / 127.5}, "0..2 instead of -1..1", '"signed"'),
    ),
    "planes": ("raw", "layout", lambda x, y: (reshaped(x), y), None, "one after another", "reshape(n, channels"),
    "transposed": ("raw", "layout", lambda x, y: (x.transpose(0, 2, 1, 3), y), None, "rows and columns", "transpose"),
    "background class": ("raw", "labels", lambda x, y: (x, (y + 1) % CLASSES), None, "one above", "background class"),
    "one below": ("raw", "labels", lambda x, y: (x, (y - 1) % CLASSES), None, "one below", "number the classes"),
    "another order": (
        *("raw", "labels", lambda x, y: (x, np.array([3, 1, 0, 5, 4, 2])[y]), None),
        *("class 0 is the model's 2, 2 is the model's 5", "model's order"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.parametrize("seed", [0, 1])
def test_fault_is_named_and_nothing_else(name: str, seed: int) -> None:
    form, what, fault, preprocess, words, fix = FAULTS[name]
    images, labels = fault(*pictures(256, seed + 50))
    found = look(form, np.ascontiguousarray(images), labels, preprocess, seed)
    assert [finding.what for finding in found.findings] == [what], found
    assert words in found.findings[0].text
    assert fix in found.findings[0].fix


@pytest.mark.parametrize("witness", [True, False])
@pytest.mark.parametrize("form", ["raw", "unit", "signed", "imagenet", "caffe"])
def test_clean_inputs_raise_no_alarm(form: str, witness: bool) -> None:
    """120 looks, of which not one may be wrong."""
    for seed in range(3):
        for sample in range(4):
            images, labels = pictures(200, 300 + sample)
            assert look(form, images, labels, None, seed, witness=witness).findings == (), (seed, sample)


@pytest.mark.parametrize("name", ["bgr", "missing scale", "double scale", "wrong mean", "planes"])
def test_fault_is_named_without_labels_by_what_the_layer_remembers(name: str) -> None:
    form, what, fault, preprocess, *_ = FAULTS[name]
    images, _ = fault(*pictures(256, 51))
    found = look(form, np.ascontiguousarray(images), None, preprocess)
    assert [finding.what for finding in found.findings] == [what]
    assert "labelled class" not in found.findings[0].text
    assert "bn are then" in found.findings[0].text


@pytest.mark.parametrize("form", ["raw", "signed"])
def test_clean_inputs_without_labels_raise_no_alarm(form: str) -> None:
    for sample in range(4):
        assert look(form, pictures(200, 300 + sample)[0], None).findings == ()


@pytest.mark.parametrize("name", ["bgr", "missing scale", "planes"])
def test_fault_is_named_by_labels_alone(name: str) -> None:
    form, what, fault, preprocess, *_ = FAULTS[name]
    images, labels = fault(*pictures(256, 52))
    found = look(form, np.ascontiguousarray(images), labels, preprocess, witness=False)
    assert ([finding.what for finding in found.findings], found.layer) == ([what], "")


def test_a_fault_of_the_images_and_one_of_the_labels_are_both_named() -> None:
    images, labels = pictures(256, 53)
    found = look("signed", images, (labels + 1) % CLASSES, "raw")
    assert [finding.what for finding in found.findings] == ["scale", "labels"]


def test_order_and_scale_together_are_one_line() -> None:
    images, labels = pictures(256, 54)
    (finding,) = look("signed", np.ascontiguousarray(images[..., ::-1]), labels, "raw").findings
    assert "scale is missing" in finding.text and "red and blue" in finding.text
    assert finding.fix == 'set data.preprocess = { preset = "signed", color = "bgr" }'


def test_labels_that_say_nothing_raise_no_alarm() -> None:
    images, labels = pictures(256, 55)
    found = look("raw", images, np.random.default_rng(0).permutation(labels))
    assert found.findings == ()


def test_remedy_undoes_the_fault() -> None:
    """The line that a finding gives, taken at its word, leaves nothing to find."""
    images, labels = pictures(256, 56)
    (finding,) = look("caffe", images, labels, "raw").findings
    assert finding.fix == 'set data.preprocess = "caffe"'
    assert look("caffe", images, labels, "caffe").findings == ()


def test_nearly_black_images_are_told_from_their_pixels() -> None:
    images, labels = pictures(64, 57)
    (finding,) = look("unit", (images > 127).astype(np.uint8), labels).findings[:1]
    assert (finding.what, "nearly black" in finding.text) == ("values", True)


def test_images_of_one_colour_are_counted() -> None:
    images, labels = pictures(64, 58)
    images[:8] = 90
    (finding,) = look("raw", images, labels).findings
    assert finding.text.startswith("8 of 64 images are of one colour")


def test_table_shows_what_was_tried_the_given_way_first() -> None:
    images, labels = pictures(256, 59)
    found = look("raw", images[..., ::-1].copy(), labels)
    first, *others = found.tried
    assert (first.way, first.images) == ("as they are", 256)
    right = {row.way: row.right or 0 for row in others}
    assert right["channels reversed"] > (first.right or 1)


@pytest.mark.parametrize(
    ("head", "targets"),
    [
        ("embedding", lambda labels: labels),
        ("sigmoids", lambda labels: np.eye(CLASSES)[labels]),
        ("regression", lambda labels: np.eye(CLASSES, dtype=np.float32)[labels]),
        ("softmax", lambda labels: labels),
    ],
)
def test_every_head_is_looked_at(head: Any, targets: Any) -> None:
    """The same scores, read as each head has them: a missing scale is named, clean images are left alone."""
    known = network("signed", 0)

    def observe(inputs: Any) -> Observed:
        seen = known.observe(inputs)
        odds = np.exp((seen.outputs - seen.outputs.max(axis=1, keepdims=True)).clip(-60))
        return replace(seen, outputs=odds / odds.sum(axis=1, keepdims=True))

    images, labels = pictures(200, 62)
    for preprocess, wanted in (("raw", ["scale"]), ("signed", [])):
        found = examine(given(images, contract(preprocess)), targets(labels), head, observe)
        assert [finding.what for finding in found.findings] == wanted


@pytest.mark.parametrize("count", [1, 2, 15, 16, 17])
def test_few_images_are_no_trouble(count: int) -> None:
    images, labels = pictures(count, 63)
    assert look("raw", images, labels).images == count


def test_answers_that_are_no_numbers_are_no_trouble() -> None:
    images, labels = pictures(64, 64)
    nothing = examine(
        given(images, contract("raw")), labels, "softmax", lambda x: Observed(np.full((len(x), 6), np.nan))
    )
    assert nothing.findings == ()


def test_data_stays_as_it_is() -> None:
    images, labels = pictures(64, 60)
    before = images.copy()
    look("signed", images, labels, "raw")
    assert np.array_equal(images, before)


@pytest.mark.parametrize(
    ("form", "expected"), [("unit", "unit"), ("signed", "signed"), ("raw", "raw"), ("imagenet", "imagenet")]
)
def test_floats_are_recognised_by_the_range_they_fill(form: Any, expected: Any) -> None:
    images, _ = pictures(64, 61)
    images[0, 0, :2] = [[0, 0, 0], [255, 255, 255]]
    scale, offset = affine_of(form)
    now = given((images * np.asarray(scale) + np.asarray(offset)).astype(np.float32), contract("raw"))
    assert now.affine == affine_of(expected)
    assert np.allclose(now.pixels, images, atol=0.01)


def test_floats_of_any_range_are_only_turned() -> None:
    images = np.random.default_rng(0).normal(0, 1000, (8, 4, 4, 3)).astype(np.float32)
    now = given(images, contract("raw"))
    assert list(now.forms()) == []
    assert np.array_equal(now.inputs(Way(), slice(None)), images)


def test_remedy_keeps_what_else_the_recipe_asks_for() -> None:
    asked = contract({"preset": "raw", "resize": "bicubic", "crop": "none"})
    now = Given(np.zeros((1, 4, 4, 3), np.float32), affine_of("raw"), asked)
    table = '{ preset = "unit", resize = "bicubic", crop = "none" }'
    assert remedy(Way("unit"), now, "data.preprocess") == f"set data.preprocess = {table}"
    assert remedy(Way("unit"), now, "--preprocess") == f"give --preprocess '{table}'"
    assert contract({"preset": "unit", "resize": "bicubic", "crop": "none"}) == replace(
        asked, scale=affine_of("unit")[0]
    )


def test_remedy_of_the_command_line_is_a_word_where_one_will_do() -> None:
    now = Given(np.zeros((1, 4, 4, 3), np.float32), affine_of("raw"), contract("raw"))
    assert remedy(Way("caffe", reversed=True), now, "--preprocess") == "give --preprocess caffe"


def test_distance_is_that_of_two_normal_distributions() -> None:
    """Variance 4 for 1 and mean 1 for 0: (4 + 1 - 1 - ln 4) / 2 = 1.307; its log(1 + .) is 0.836."""
    known = Expected("bn", np.zeros(1), np.ones(1))
    seen = Observed(np.zeros((2, 1)), (known,), (np.ones((2, 1)),), (np.full((2, 1), 5.0),))
    assert distances(seen, np.ones((1, 2)))[0, 0] == pytest.approx(0.836, abs=0.003)


def test_fewer_images_are_looked_at_where_they_are_large() -> None:
    assert [images_for(side, side) for side in (32, 160, 224, 1000)] == [256, 163, 83, 48]


@pytest.mark.parametrize(("moved", "alarm"), [(1.0, True), (0.1, False)])
def test_layer_that_is_as_near_as_in_training_raises_no_alarm(moved: float, alarm: bool) -> None:
    """Reversed channels are ten times nearer: where a mean is off by a deviation that is news, by a tenth it is not."""
    images = pictures(128, 5)[0]
    blue = float((images[..., 2].astype(float) - images[..., 0]).mean())

    def observe(inputs: Any) -> Observed:
        reversed_pixels = float((inputs[..., 0] - inputs[..., 2]).mean()) > blue / 2 and 100 < inputs.max() <= 255
        count = len(inputs)
        means = np.full((count, 1), moved / 10 if reversed_pixels and inputs.min() >= 0 else moved)
        table = np.full((count, 3), 1 / 3)
        return Observed(table, (Expected("bn", np.zeros(1), np.ones(1)),), (means,), (1 + means**2,))

    contract = PreprocessSpec.model_validate("raw").resolve((None, SIDE, SIDE, 3))
    found = examine(given(images, contract), None, "softmax", observe)
    assert [finding.what for finding in found.findings] == (["color"] if alarm else [])
