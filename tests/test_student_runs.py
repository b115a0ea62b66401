"""A run that puts a student in the model's place and teaches it on images without labels, and takes it up again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit import pipeline

PLANNED = ("original", "original.tflite", "01-student", "02-distill", "main.tflite")
RECIPE = """
schema = 1
export = ["tflite"]

[data]
use = "digits"
preprocess = { scale = 0.0625 }
unlabelled = "more.npy"

[data.splits]
train = 60
selection = 100
test = 300

[[passes]]
use = "student"
depth = 0.0
weights = "random"

[[passes]]
use = "distill"
epochs = 2

[measure]
processes = 1
seconds = 0.02
warmup_seconds = 0.01
"""


def repeating() -> Any:
    """A CNN in which a convolution comes twice."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    x = image = keras.Input((8, 8, 1), name="image")
    for name in ("first", "second", "again"):
        x = layers.Conv2D(6, 3, padding="same", activation="relu", name=name)(x)
    return keras.Model(image, layers.Dense(10, activation="softmax", name="classes")(layers.Flatten(name="flat")(x)))


@pytest.mark.slow
def test_student_is_taught_on_images_without_labels_and_taken_up_again(tmp_path: Path) -> None:
    datasets = pytest.importorskip("sklearn.datasets", reason="the digits need scikit-learn")
    repeating().save(tmp_path / "big.keras")
    digits = datasets.load_digits().images.astype(np.uint8)
    np.save(tmp_path / "more.npy", np.concatenate([digits[:40], 16 - digits[:200]]))
    (tmp_path / "r.toml").write_text(RECIPE)
    first = pipeline.run(tmp_path / "r.toml", model=tmp_path / "big.keras", out=tmp_path / "run").manifest
    split = next(record for record in first.data if record.split == "unlabelled")
    assert (split.images, split.per_class) == (200, ())
    (left,) = first.left_out
    assert (left.reason, left.images) == ("equal", 40)
    stages = {stage.name: stage for stage in first.stages}
    student, distill = stages["01-student"], stages["02-distill"]
    assert [change["layer"] for change in student.changes[1:]] == ["blocks of one shape", "weights", "again"]
    assert "60 images and 200 without labels" in distill.changes[0]["reason"]
    parameters = {m.subject: m.value for m in first.measurements if m.name == "parameters"}
    assert parameters["original"] - parameters["02-distill"] == 3 * 3 * 6 * 6 + 6

    np.save(tmp_path / "more.npy", 16 - digits[:100])
    second = pipeline.run(resume=tmp_path / "run").manifest
    kept = {stage.name: stage.key for stage in first.stages}
    changed = [stage.name for stage in second.stages if stage.key != kept[stage.name]]
    assert set(changed) & set(PLANNED) == {"02-distill", "main.tflite"}
