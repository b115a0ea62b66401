"""The equivalence of a run: what its directory holds, read again; devices that failed are no part of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit import equivalence, runs
from toolkit.core import Measurement, TensorSpec
from toolkit.pipeline import write_report
from toolkit.runs import ArtifactRecord, Manifest, StageRecord

OUTPUT = (TensorSpec("classes", (1, 4), "float32", "softmax"),)
HERE = "this-machine"


def stage(name: str, use: str, kind: Any, parent: str, *, same_graph: bool = False) -> StageRecord:
    return StageRecord(name, use, kind, parent, "key", {}, 1.0, same_graph=same_graph)


def record(name: str, parent: str, scheme: Any) -> ArtifactRecord:
    return ArtifactRecord(name, "phone", parent, f"artifacts/{name}", name[2:], scheme, 1, "", (), OUTPUT)


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, Manifest]:
    """Original and one file of a graph that a pass only marked, on two devices; answers of 20 images."""
    answers = {"original": 0.0, f"a.tflite@{HERE}": 1e-6, "a.tflite@phone": 0.3}
    (tmp_path / "samples").mkdir()
    base = np.random.default_rng(0).dirichlet(np.ones(4), 20).astype(np.float32)
    for name, error in answers.items():
        noise = np.random.default_rng(1).normal(0, error, base.shape) if error else 0
        np.savez(
            tmp_path / "samples" / f"{name}.answers.npz", **{"classes": base + noise, "example ids": np.arange(20)}
        )
    stages = [
        stage("original", "keras", "source", ""),
        stage("a/quantize", "quantize", "pass", "original", same_graph=True),
        stage("a.tflite", "tflite", "export", "a/quantize"),
        stage("answers:a.tflite@phone", "litert", "check", "a.tflite"),
        stage(f"answers:a.tflite@{HERE}", "litert", "check", "a.tflite"),
        stage("answers:original", "keras", "check", "original"),
    ]
    measured = tuple(Measurement("a.tflite", "top1", 1.0, "", "measured", device) for device in (HERE, "phone"))
    manifest = Manifest(
        name="n",
        status="done",
        started="",
        recipe={},
        seed=0,
        host={},
        versions={},
        stages=tuple(stages),
        artifacts=(record("a.tflite", "a/quantize", "float32"),),
        measurements=measured,
    )
    runs.write_atomically(tmp_path / "manifest.json", runs.dump(manifest))
    return tmp_path, manifest


def test_subjects_are_models_then_files_by_device(run: tuple[Path, Manifest]) -> None:
    found = equivalence.of_run(*run)
    assert found is not None
    assert [each.title for each in found.subjects] == ["original", f"a.tflite on {HERE}", "a.tflite on phone"]
    assert {each.stage for each in found.subjects} == {"", "original"}
    assert (found.head, found.images, len(found.pairs)) == ("softmax", 20, 3)
    assert [pair.unexpected for pair in found.pairs if pair.second == 1] == [""]
    assert [pair.unexpected for pair in found.pairs if pair.second == 2] == [
        "the model it was written from",
        "the same file",
    ]


@pytest.mark.parametrize("left", [(), (Measurement("a.tflite", "latency_p50_ms", 1.0, "ms", "estimated", "phone"),)])
def test_answers_of_a_device_that_failed_are_old_and_no_part_of_it(
    run: tuple[Path, Manifest], left: tuple[Measurement, ...]
) -> None:
    folder, manifest = run
    found = equivalence.of_run(folder, replace(manifest, measurements=(manifest.measurements[0], *left)))
    assert found is not None
    assert [each.device for each in found.subjects] == ["", HERE]


def test_answers_that_are_gone_are_left_out(run: tuple[Path, Manifest]) -> None:
    folder, manifest = run
    (folder / "samples" / "original.answers.npz").unlink()
    found = equivalence.of_run(folder, manifest)
    assert found is not None
    assert [each.name for each in found.subjects] == ["a.tflite", "a.tflite"]
    (folder / "samples" / "a.tflite@phone.answers.npz").unlink()
    assert equivalence.of_run(folder, manifest) is None


@pytest.mark.parametrize("content", [b"", b"not an archive", b"PK\x03\x04 cut off"])
def test_damaged_answers_are_left_out(run: tuple[Path, Manifest], content: bytes) -> None:
    (run[0] / "samples" / "original.answers.npz").write_bytes(content)
    found = equivalence.of_run(*run)
    assert found is not None
    assert ([each.name for each in found.subjects], found.left_out) == (["a.tflite", "a.tflite"], 1)


def test_report_of_an_older_run_has_the_matrix_and_leaves_the_manifest(run: tuple[Path, Manifest]) -> None:
    folder, manifest = run
    before = (folder / "manifest.json").read_bytes()
    page = write_report(folder).read_text()
    assert "Equivalence of all models" in page
    assert "the same file" in page
    assert (folder / "manifest.json").read_bytes() == before
    assert equivalence.completed(folder, replace(manifest, status="failed")).equivalence is None


def test_manifest_keeps_it(run: tuple[Path, Manifest]) -> None:
    folder, manifest = run
    known = equivalence.completed(folder, manifest)
    runs.write_atomically(folder / "manifest.json", runs.dump(known))
    assert runs.read(folder).equivalence == known.equivalence
