"""Optional: faults put between real models and real images are named, and twenty clean pairs raise no alarm."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.checks.inputs import InputsCheck, examine, images_for
from toolkit.checks.presented import given
from toolkit.core import Records
from toolkit.datasets.csv import Csv
from toolkit.datasets.npz import Npz
from toolkit.datasets.preprocess import PreprocessSpec

FOLDER = Path(os.environ.get("EDGEKIT_DATA", ""))
pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("EDGEKIT_DATA"), reason="EDGEKIT_DATA names no folder of real models"),
]
MODELS = {  # file, images, preprocess
    "resnet20": ("resnet20_cifar10_jpeg.keras", "cifar", "raw"),
    "resnet8": ("resnet8_cifar10_jpeg.keras", "cifar", "raw"),
    "mlperf": ("mlperf_resnet8_cifar10.keras", "cifar", "raw"),
    "mobilenet": ("mobilenet_v1_025_224_imagenet.keras", "imagenet", "signed"),
    "trashnet": ("mnv2_trashnet6_160.keras", "trashnet", "raw"),
}
WRONG = {  # what the recipe says, for a model that wants raw or signed
    "scale": {"raw": {"scale": 1 / 255}, "signed": "raw"},
    "double": {"raw": {"scale": 1 / 255 / 255}, "signed": {"scale": 1 / 255 / 127.5, "offset": -1.0}},
    "mean": {"raw": {"scale": 1.0, "offset": [-123.68, -116.779, -103.939]}, "signed": {"scale": 1 / 127.5}},
}


@dataclass(frozen=True)
class Real:
    """A model ready to run, its head, and its images."""

    observe: Any
    head: Any
    records: Records
    form: str

    def look(self, seed: int, fault: str = "") -> InputsCheck:
        """What is found on images drawn by this seed, with a fault put in."""
        count = images_for(*self.records.read(0).shape[:2])
        places = np.random.default_rng(seed).permutation(len(self.records))[:count]
        images = np.stack([self.records.read(int(place)) for place in places])
        labels, classes = np.asarray(self.records.labels)[places], len(self.records.classes)
        n, height, width, channels = images.shape
        spec: Any = WRONG.get(fault, {}).get(self.form, self.form)
        if fault == "bgr":
            images = images[..., ::-1]
        if fault == "layout":
            images = images.transpose(0, 3, 1, 2).reshape(n, height, width, channels)
        if fault == "labels":
            labels = (labels + 1) % classes
        contract = PreprocessSpec.model_validate(spec).resolve((None, height, width, channels))
        return examine(given(np.ascontiguousarray(images), contract), labels, self.head, self.observe)


@cache
def real(name: str) -> Real:
    from toolkit.engine.inputs import Witnesses
    from toolkit.sources.keras import Keras

    file, images, form = MODELS[name]
    model = Keras().load(FOLDER / "models" / file)
    return Real(Witnesses(model.graph).observe, model.head, _records(images), form)


@cache
def _records(images: str) -> Records:
    data = FOLDER / "data"
    if images == "imagenet":
        folder = data / "imagenet_sample300"
        return Csv(path=folder / "labels.csv", classes_file=data / "imagenet_classes.csv").load()
    return Npz(path=data / {"cifar": "cifar10_jpeg_test10k.npz", "trashnet": "trashnet6_160.npz"}[images]).load()


@pytest.mark.parametrize("model", ["resnet20", "mobilenet"])
@pytest.mark.parametrize(
    ("fault", "what", "words"),
    [
        ("bgr", "color", "red and blue are swapped"),
        ("scale", "scale", ""),
        ("double", "scale", "scaled twice"),
        ("mean", "scale", "mean or scale are others"),
        ("layout", "layout", "NCHW"),
        ("labels", "labels", "one above"),
    ],
)
def test_fault_is_named(model: str, fault: str, what: str, words: str) -> None:
    found = real(model).look(0, fault)
    assert [finding.what for finding in found.findings] == [what], found
    assert words in found.findings[0].text


@pytest.mark.parametrize(
    ("model", "seeds"), [("resnet20", 6), ("resnet8", 6), ("mlperf", 5), ("mobilenet", 3), ("trashnet", 2)]
)
def test_clean_images_raise_no_alarm(model: str, seeds: int) -> None:
    """22 in all."""
    assert [real(model).look(seed).findings for seed in range(seeds)] == [()] * seeds
