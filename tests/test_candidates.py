"""Candidates of a search as real files, timed here or estimated elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import keras
import pytest
from keras import layers

from toolkit.candidates import Candidates
from toolkit.core import MeasureSpec, Model, Signature, TensorSpec
from toolkit.devices import load_device
from toolkit.estimates import estimated
from toolkit.pruning import Needs


def model_of(width: int) -> Model:
    image = keras.Input((24, 24, 3), batch_size=None, name="image")
    x = layers.Conv2D(width, 3, padding="same", activation="relu")(image)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(width, 3, padding="same")(x))
    graph = keras.Model(image, layers.Dense(4, name="scores")(x))
    signature = Signature(
        (TensorSpec("image", (None, 24, 24, 3), "float32", "image", "NHWC"),),
        (TensorSpec("scores", (None, 4), "float32", "logits"),),
    )
    return Model("keras", graph, signature)


@pytest.fixture(scope="module")
def models() -> Iterator[tuple[Model, Model]]:
    yield model_of(128), model_of(32)


def test_sizes_are_those_of_the_float32_files(models: Any) -> None:
    large, small = Candidates(Needs(), lambda progress: None)(models, "")
    kib = [4 * model.graph.count_params() / 1024 for model in models]
    assert kib[0] < large.size_kib < kib[0] + 8 and kib[1] < small.size_kib < kib[1] + 8
    assert (large.milliseconds, large.source) == (None, "computed")


def test_latency_elsewhere_is_the_profiles_estimate(models: Any) -> None:
    profile = load_device("raspberry-pi-4")
    candidates = Candidates(Needs(profile, profile.measure), lambda progress: None)
    first, second, third = candidates((*models, models[0]), profile.name)
    assert first == third and first.source == "estimated"
    (row,) = estimated.measurements(candidates._file(models[1], "tflite").path, profile, "x", threads=4)
    assert row.interval is not None
    assert (second.milliseconds, second.range) == (row.value, (row.interval.low, row.interval.high))


def test_latency_here_is_measured(models: Any) -> None:
    spec = MeasureSpec(processes=2, seconds=0.05, warmup_seconds=0.02)
    found = Candidates(Needs(load_device("this-machine"), spec), lambda progress: None)(models, "this-machine")
    assert [item.source for item in found] == ["measured", "measured"]
    assert found[0].milliseconds and found[1].milliseconds
    assert found[0].milliseconds > 2 * found[1].milliseconds  # 15 times the MACs
