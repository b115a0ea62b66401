"""A calibration's images: enough, too few, or unlike those that come; and the sentence that says so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from toolkit.checks.coverage import CalibrationCheck, check, refusal
from toolkit.core import Batch, Model, QuantSpec, Signature, Statistics, TensorSpec
from toolkit.engine.calibrate import calibrate
from toolkit.engine.prepare import prepare
from toolkit.errors import InputError, UnsupportedError

SIGNATURE = Signature(
    (TensorSpec("image", (None, 8, 8, 1), "float32", "image", "NHWC"),),
    (TensorSpec("head", (None, 4), "float32", "logits"),),
)


@dataclass(frozen=True)
class Images:
    """Noise of a spread, as far as calibration looks at a data set."""

    count: int
    spread: float = 1.0
    seed: int = 0
    name: str = "selection"

    def __len__(self) -> int:
        return self.count

    def batches(self, size: int) -> Iterator[Batch]:
        rng = np.random.default_rng(self.seed)
        images = (rng.uniform(-1, 1, (self.count, 8, 8, 1)) * self.spread).astype(np.float32)
        for start in range(0, self.count, size):
            part = images[start : start + size]
            yield Batch({"image": part}, {}, tuple(map(str, range(start, start + len(part)))))


@pytest.fixture(scope="module")
def model() -> Model:
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(6, 3, activation="relu", name="conv")(image)
    outputs = layers.Dense(4, name="head")(layers.GlobalAveragePooling2D(name="mean")(x))
    return Model("keras", keras.Model(image, outputs), SIGNATURE, quant=QuantSpec("int8"))


def quantized(model: Model, data: Images, **asked: Any) -> Model:
    """With the ranges of these images."""
    quant = replace(model.quant, **asked)
    found = calibrate(prepare(model.graph).graph, (batch.inputs for batch in data.batches(64)), histograms=True)
    return replace(model, quant=quant, statistics=Statistics(found.ranges(quant.ranges, quant.percentile), len(data)))


def looked_at(model: Model, data: Images, others: Images, **asked: Any) -> CalibrationCheck:
    return check(quantized(model, data, **asked), data, others, stage="01-quantize")  # type: ignore[arg-type]


def by_layer(found: CalibrationCheck) -> dict[str, Any]:
    return {row.layer: row for row in found.tensors}


def test_many_images_of_a_kind_are_enough(model: Model) -> None:
    found = looked_at(model, Images(200), Images(264, seed=1))
    assert found.advice.startswith("200 images are enough: with half of them ranges move by ")
    assert (found.images, found.other, found.others, found.judged) == (200, "selection", 200, 64)
    assert found.enough
    assert {"image", "mean", "head"} < set(by_layer(found))
    assert all(row.outside < 0.04 for row in found.tensors)


def test_input_moves_by_hand_worked_steps(model: Model) -> None:
    """The ends of 200 images of -1..1 are theirs; images half as wide have ends at half: 63.75 of 255 steps away."""
    row = by_layer(looked_at(model, Images(200), Images(200, 0.5, seed=1)))["image"]
    assert row.step == pytest.approx(2 / 255, rel=1e-3)
    assert row.other_steps == pytest.approx(255 / 4, rel=0.01)
    assert row.outside == 0.0
    assert row.half_steps < 0.5


def test_share_outside_is_that_of_the_values(model: Model) -> None:
    """Values of -2..2, evenly: half of them lie beyond -1..1."""
    found = looked_at(model, Images(200), Images(200, 2.0, seed=1))
    assert by_layer(found)["image"].outside == pytest.approx(0.5, abs=0.02)


def test_other_images_that_are_clipped_are_said_first(model: Model) -> None:
    found = looked_at(model, Images(200), Images(200, 3.0, seed=1))
    assert found.other_db - found.sqnr_db > 5
    assert "clips" in found.advice and not found.enough
    assert found.advice.endswith("calibrate on images like those it will see")


class Uneven(Images):
    """The first half of the images is nearly black."""

    def batches(self, size: int) -> Iterator[Batch]:
        for batch in super().batches(size):
            images = batch.inputs["image"].copy()
            images[: self.count // 2] *= 0.05
            yield replace(batch, inputs={"image": images})


def test_images_of_which_half_would_not_do_call_for_more(model: Model) -> None:
    found = looked_at(model, Uneven(6), Images(9, seed=1))
    assert found.half_db < found.sqnr_db - 1.5
    assert found.advice.startswith("take more than 6 images: with half of them ranges move by ")
    assert f"the output loses {found.sqnr_db - found.half_db:.1f} dB" in found.advice and not found.enough


def test_images_that_judge_are_no_part_of_the_sample(model: Model) -> None:
    found = looked_at(model, Images(200), Images(60, seed=1))
    assert (found.judged, found.others) == (20, 40)


def test_wide_integers_have_finer_steps(model: Model) -> None:
    rows = [by_layer(looked_at(model, Images(64), Images(64, seed=1), scheme=s))["image"] for s in ("int8", "int16x8")]
    assert rows[0].step / rows[1].step == pytest.approx(65535 / 255)


def test_model_without_ranges_of_its_own_is_refused(model: Model) -> None:
    assert refusal(replace(model, quant=QuantSpec("dynamic"))) == "is dynamic, which needs no calibration"
    learned = quantized(model, Images(8))
    assert learned.statistics is not None
    ranges = {name: replace(found, how="learned") for name, found in learned.statistics.ranges.items()}
    taught = replace(learned, statistics=replace(learned.statistics, ranges=ranges))
    with pytest.raises(UnsupportedError, match="learned in training"):
        check(taught, Images(8), Images(8))  # type: ignore[arg-type]


def test_three_images_are_refused(model: Model) -> None:
    with pytest.raises(InputError, match="needs 4 images"):
        looked_at(model, Images(3), Images(8, seed=1))
