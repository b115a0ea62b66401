"""The sample manifest with answers of other heads: measured and drawn by the same code as a run's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from toolkit.checks import details
from toolkit.checks.accuracy import Predictions, measure_accuracy
from toolkit.runs import Manifest

DEVICE = "this-machine"
FILES = {"phone.tflite": 0.3, "server.onnx": 0.05, "tiny.tflite": 1.2}  # and how far off each is


class Targets:
    """A split of which only the targets count."""

    name, fingerprint = "test", "f00d"

    def __init__(self, labels: Any, classes: tuple[str, ...], task: str) -> None:
        self.labels, self.classes, self.task = labels, classes, task

    def __len__(self) -> int:
        return len(self.labels)


def manifest(base: Manifest, head: str, **options: Any) -> Manifest:
    """`base` with the metrics and details of a head. classes, images: how many; missing: a class without images."""
    data, outputs = _MAKERS[head](np.random.default_rng(0), **options)
    return _with_answers(base, head, data, outputs)


def _classes(rng: Any, classes: int = 10, images: int = 400, missing: int = -1) -> Any:
    labels = rng.integers(0, classes, images)
    labels = labels[labels != missing]
    logits = rng.normal(size=(len(labels), classes)) + 4 * np.eye(classes)[labels]
    names = tuple(f"class {place}" for place in range(classes))
    return Targets(labels, names, "classes"), _noisy(rng, logits)


def _labels(rng: Any) -> Any:
    truth = (rng.random((200, 5)) < 0.3).astype(np.uint8)
    truth[:, 4] = 0
    found = _noisy(rng, 3.0 * truth - 1.5 + rng.normal(size=truth.shape))
    outputs = {name: 1 / (1 + np.exp(-each)) for name, each in found.items()}
    return Targets(truth, ("cat", "dog", "tree", "car", "unseen"), "labels"), outputs


def _vectors(rng: Any) -> Any:
    labels = np.arange(150) % 5
    return Targets(labels, tuple("abcde"), "classes"), _noisy(rng, 3 * np.eye(8)[labels] + rng.normal(size=(150, 8)))


def _numbers(rng: Any) -> Any:
    wanted = 10 * rng.normal(size=(120, 2)).astype(np.float32)
    return Targets(wanted, ("x", "angle"), "values"), _noisy(rng, wanted + rng.normal(size=wanted.shape))


_MAKERS: dict[str, Any] = {"logits": _classes, "sigmoids": _labels, "embedding": _vectors, "regression": _numbers}


def _noisy(rng: Any, outputs: Any) -> dict[str, Any]:
    others = {name: outputs + far * rng.normal(size=outputs.shape) for name, far in FILES.items()}
    return {"original": outputs, **others}


def _with_answers(base: Manifest, head: Any, data: Any, outputs: Mapping[str, Any]) -> Manifest:
    found = [item for item in base.measurements if item.name not in ("top1", "top1_drop", "agreement")]
    per_class, drawn = {}, {}
    original = Predictions("original", outputs["original"], head)
    for name, answers in outputs.items():
        predictions = Predictions(name, answers, head, "" if name == "original" else DEVICE)
        other = None if name == "original" else original
        accuracy = measure_accuracy(predictions, data, original=other)
        found += accuracy.measurements
        per_class[name] = accuracy.per_class
        drawn[name] = details.of_answers(predictions, data, original=other, left_out=accuracy.left_out)
    return replace(base, classes=data.classes, measurements=tuple(found), per_class=per_class, details=drawn)
