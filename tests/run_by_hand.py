"""A finished run made by hand, with all that a real one keeps and no model in it."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from toolkit import runs
from toolkit.checks.accuracy import Predictions, measure_accuracy
from toolkit.checks.details import Details
from toolkit.checks.parity import measure_parity
from toolkit.core import Budget, Measurement, TensorSpec
from toolkit.split_records import LABELS, Labelled

MS = 1_000_000
CLASSES = ("cat", "dog", "owl")
FILE = "phone.tflite"
HERE = "this-machine"
OUTPUT = TensorSpec("classes", (None, 3), "float32", "softmax")
IMAGES = 900


def scores(right: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Probabilities that decide for the label where `right`, else for the class after it."""
    decided = np.where(right, labels, (labels + 1) % 3)
    return np.asarray(np.eye(3)[decided] * 0.8 + 0.1, np.float32)


def make_run(
    folder: Path,
    *,
    loses: int = 5,
    milliseconds: float = 4.0,
    size: int = 40 * 1024,
    content: bytes = b"a file",
    host: dict[str, str] | None = None,
) -> Path:
    """A run whose file loses so many of 900 images, all of them dogs; each of eight processes is 0.1 ms slower."""
    labels = np.arange(IMAGES) % 3
    right = np.arange(IMAGES) % 10 > 0  # 90% of the original's
    lost = right & ~((labels == 1) & (np.cumsum(right & (labels == 1)) <= loses))
    data = Labelled("test", "sha256:t", CLASSES, labels, "classes")
    original = Predictions("original", scores(right, labels), "softmax")
    own = Predictions(FILE, scores(lost, labels), "softmax", HERE)
    found = [*measure_accuracy(own, data, original=original).measurements, *measure_parity(own, original, data)]
    found.append(Measurement(FILE, "size_bytes", size, "B", "computed"))
    found.append(Measurement(FILE, "latency_p50_ms", milliseconds, "ms", "measured", HERE, how={"processes": 8}))
    samples = folder / "samples"
    samples.mkdir(parents=True)
    np.savez(samples / "original.answers.npz", classes=original.outputs, **{"example ids": np.arange(IMAGES)})
    np.savez(samples / f"{FILE}@{HERE}.answers.npz", classes=own.outputs, **{"example ids": np.arange(IMAGES)})
    np.savez(samples / LABELS, labels=labels, task="classes", fingerprint="sha256:t")
    np.savez(samples / f"{FILE}@{HERE}.latency.npz", *[np.full(9, (milliseconds + i / 10) * MS) for i in range(8)])
    (folder / "artifacts").mkdir()
    (folder / "artifacts" / FILE).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    record = runs.ArtifactRecord(
        FILE, "phone", "original", f"artifacts/{FILE}", "tflite", "int8", size, digest, (), (OUTPUT,)
    )
    reference = replace(record, name="original.tflite", variant="original")
    own_budget = Budget(max_accuracy_drop=0.02).model_dump(mode="json")
    manifest = runs.Manifest(
        name="small",
        status="done",
        started="",
        recipe={
            "targets": [{"device": HERE, "variants": ["phone"], "budget": own_budget}],
            "budget": {"max_accuracy_drop": 0.02},
        },
        seed=0,
        host=host or {},
        versions={},
        classes=CLASSES,
        outcome="PASS",
        data=(runs.DataRecord("test", IMAGES, "sha256:t", "made"),),
        artifacts=(reference, record),
        stages=(runs.StageRecord(f"answers:{FILE}@{HERE}", "litert", "check", FILE, "k", {}, 0.0),),
        measurements=tuple(found),
        details={"original": Details("softmax"), FILE: Details("softmax", HERE)},
    )
    runs.Run(folder, manifest).update()
    return folder
