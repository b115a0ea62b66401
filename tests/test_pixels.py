"""A whole run whose files take pixels: judged on pixels, as good as the model, and known again from the file alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit import pipeline
from toolkit.errors import InputError
from toolkit.exporters.metadata import read_metadata
from toolkit.measuring import bench_files, evaluate_file

RECIPE = """
schema = 1
description = "Files that take pixels"

[data]
use = "digits"
preprocess = { scale = 0.0625 }

[data.splits]
calibration = 100
test = 400

[[variants]]
name = "float"
export = [
    { use = "tflite", embed_preprocessing = true, metadata = true },
    { use = "onnx", embed_preprocessing = true, metadata = true, layout = "NCHW" },
]

[[variants]]
name = "int8"
export = [{ use = "tflite", embed_preprocessing = true }, { use = "onnx", embed_preprocessing = true }]

[[variants.passes]]
use = "quantize"
scheme = "int8"

[budget]
max_accuracy_drop = 0.1
min_agreement = 0.5

[measure]
processes = 1
seconds = 0.02
warmup_seconds = 0.01
"""


@pytest.fixture(scope="module")
def result(digits_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("pixels")
    (folder / "pixels.toml").write_text(RECIPE)
    return pipeline.run(folder / "pixels.toml", model=digits_model, out=folder / "run")


def test_every_file_takes_pixels_and_passes_its_gates(result: Any) -> None:
    files = [record for record in result.manifest.artifacts if not record.name.startswith("original")]
    assert [record.name for record in files] == ["float.tflite", "float.onnx", "int8.tflite", "int8.onnx"]
    for record in files:
        assert record.pixels and record.inputs[0].dtype == "uint8"
        outcomes = {v.gate: v.outcome for v in result.manifest.verdicts if v.artifact == record.name}
        assert set(outcomes.values()) == {"PASS"} and len(outcomes) == 2
    assert result.manifest.outcome == "PASS"


def test_answers_on_pixels_are_those_of_the_model_on_the_prepared_images(result: Any) -> None:
    samples = result.folder / "samples"
    expected = np.load(samples / "original.answers.npz")["classes"]
    for name in ("float.tflite", "float.onnx"):
        found = np.load(samples / f"{name}@this-machine.answers.npz")["classes"]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_eval_and_bench_of_such_a_file_feed_it_pixels(result: Any) -> None:
    known = {m.subject: m.value for m in result.manifest.measurements if m.name == "top1"}
    for name in ("int8.tflite", "float.onnx"):
        path = result.folder / "artifacts" / name
        found = evaluate_file(
            path, data="digits", preprocess={"scale": 0.0625}, layout="NCHW" if "onnx" in name else None
        )
        top1 = next(row["value"] for row in found["measurements"] if row["name"] == "top1")
        assert top1 == pytest.approx(known[name], abs=0.05)  # all digits, not the 400 of the test split
    times = bench_files([result.folder / "artifacts" / "int8.tflite"], processes=1, seconds=0.02)
    assert times["measurements"][0]["value"] > 0


def test_metadata_of_a_delivered_file_names_its_source_and_classes(result: Any) -> None:
    for name in ("float.tflite", "float.onnx"):
        found = read_metadata(result.folder / "artifacts" / name)
        assert found is not None
        assert found.classes == result.manifest.classes
        assert found.preprocessing["color"] == "gray" and found.preprocessing["scale"] == [1.0]
        assert found.provenance["model"] == "digits.keras" and len(found.provenance["sha256"]) == 64


def test_pixels_of_float_images_are_refused(tmp_path: Path) -> None:
    from toolkit.core import Preprocessing
    from toolkit.datasets.npz import Npz
    from toolkit.datasets.stream import Split

    np.savez(tmp_path / "f.npz", images=np.zeros((4, 2, 2, 3), np.float32), labels=np.array([0, 1, 0, 1]))
    with pytest.raises(InputError, match="float arrays"):
        Split("test", Npz(path=tmp_path / "f.npz").load(), range(4), Preprocessing()).pixels()


def test_pixels_are_rgb_as_decoded_whatever_the_model_takes(tmp_path: Path) -> None:
    from toolkit.core import Preprocessing
    from toolkit.datasets.npz import Npz
    from toolkit.datasets.stream import Split

    images = np.random.default_rng(0).integers(0, 256, (4, 2, 2, 3), dtype=np.uint8)
    np.savez(tmp_path / "u.npz", images=images, labels=np.array([0, 1, 0, 1]))
    caffe = Preprocessing(color="bgr", offset=(-103.939, -116.779, -123.68))
    split = Split("test", Npz(path=tmp_path / "u.npz").load(), range(4), caffe)
    (batch,) = split.pixels().batches(4)
    np.testing.assert_array_equal(batch.inputs["image"], images)
    assert split.pixels().ids == split.ids


def test_run_on_float_images_stops_before_any_file_is_made(digits_model: Path, tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((600, 8, 8, 1), dtype=np.float32)
    np.savez(tmp_path / "f.npz", images=images, labels=np.arange(600) % 10)
    recipe = RECIPE.replace('use = "digits"', f'use = "npz"\npath = "{tmp_path / "f.npz"}"')
    (tmp_path / "floats.toml").write_text(recipe)
    with pytest.raises(InputError, match="float arrays, and the file takes uint8 pixels"):
        pipeline.run(tmp_path / "floats.toml", model=digits_model, out=tmp_path / "run")
    assert not list((tmp_path / "run" / "artifacts").glob("float.*"))
