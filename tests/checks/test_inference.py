"""Inputs are streamed to disk as they are; answers come back by name; NaN is a failure that names the output."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.checks import inference
from toolkit.core import Artifact, Batch, Progress, Signature, TensorSpec
from toolkit.errors import InputError, StageError


class Data:
    """130 rows, so three batches of at most 64; row i is filled with i."""

    name, fingerprint, classes = "test", "f", ("a", "b")
    labels = np.zeros(130, np.int64)

    def __len__(self) -> int:
        return 130

    def batches(self, size: int) -> Iterator[Batch]:
        rows = np.repeat(np.arange(130, dtype=np.float32), 6).reshape(130, 1, 2, 3)
        for start in range(0, 130, size):
            part = rows[start : start + size]
            yield Batch({"image": part}, {"label": self.labels[:1]}, tuple(map(str, range(len(part)))))


class Session:
    """Answers a job with what it is given."""

    def __init__(self, folder: Path, answer: Any) -> None:
        self.path, self.answer, self.jobs = folder, answer, []

    def folder(self) -> str:
        return str(self.path)

    def push(self, path: Path) -> str:
        return str(path)

    def pull(self, remote: str, path: Path) -> None:
        path.write_bytes(Path(remote).read_bytes())

    def run(self, job: Mapping[str, Any], *, timeout_s: float) -> dict[str, Any]:
        self.jobs.append((job, timeout_s))
        for path in job["outputs"].values():
            np.save(path, self.answer)
        return {"seconds_invoke": 1.0, "seconds_total": 2.0, "kernel_path": "k", "versions": {}}


def artifact() -> Artifact:
    specs = (TensorSpec("image", (1, 3, 1, 2), "float32", "image", "NCHW"),), (TensorSpec("y", (1, 2), "float32"),)
    return Artifact("m.onnx", Path("m.onnx"), "onnx", "float32", 1, "0", Signature(*specs))


def test_each_form_of_a_split_is_prepared_once_and_when_it_is_asked_for(tmp_path: Path) -> None:
    class Split(Data):
        read = 0

        def batches(self, size: int) -> Iterator[Batch]:
            type(self).read += 1
            return super().batches(size)

        def pixels(self) -> Split:
            return self

    said: list[Progress] = []
    specs = artifact().signature.inputs
    split: Any = Split()
    inputs = inference.OnDisk(split, specs, tmp_path, what="test", emit=said.append)
    assert (Split.read, said) == (0, [])
    first, pixels = inputs.paths()["image"], inputs.paths(pixels=True)["image"]
    assert (inputs.paths()["image"], inputs.paths(pixels=True)["image"], Split.read) == (first, pixels, 2)
    assert (np.load(first).dtype, np.load(pixels).dtype) == (np.float32, np.uint8)
    words = ["preparing 130 test images", "preparing 130 test images as pixels"]
    assert [progress.text for progress in said if progress.keep] == words
    assert [progress.fraction for progress in said[1:4]] == [64 / 130, 128 / 130, 1.0]


def test_prepared_inputs_hold_every_row_in_order(tmp_path: Path) -> None:
    prepared = inference.prepare(Data(), (TensorSpec("image", (1, 1, 2, 3), "float32"),), tmp_path)
    found = np.load(prepared.paths["image"])
    assert (found.dtype, found.shape, prepared.images) == (np.float32, (130, 1, 2, 3), 130)
    np.testing.assert_array_equal(found[:, 0, 0, 0], np.arange(130))


def test_image_with_nan_is_named(tmp_path: Path) -> None:
    class Holed(Data):
        def batches(self, size: int) -> Iterator[Batch]:
            for number, batch in enumerate(super().batches(size)):
                rows = batch.inputs["image"].copy()
                if number == 1:
                    rows[5, 0, 1, 2] = np.nan
                yield Batch({"image": rows}, batch.targets, tuple(f"{number}/{name}" for name in batch.ids))

    with pytest.raises(InputError, match="1/5: input 'image' is NaN or infinite"):
        inference.prepare(Holed(), (TensorSpec("image", (1, 1, 2, 3), "float32"),), tmp_path)


def test_inputs_of_pixels_are_written_as_uint8_and_nothing_else_is_taken_for_them(tmp_path: Path) -> None:
    spec = TensorSpec("image", (1, 1, 2, 3), "uint8")
    found = np.load(inference.prepare(Data(), (spec,), tmp_path).paths["image"])
    assert (found.dtype, found[129, 0, 1, 2]) == (np.uint8, 129)

    class Scaled(Data):
        def batches(self, size: int) -> Iterator[Batch]:
            for batch in super().batches(size):
                yield Batch({"image": batch.inputs["image"] / 2}, batch.targets, batch.ids)

    with pytest.raises(InputError, match="1: input 'image' is no uint8 pixels"):
        inference.prepare(Scaled(), (spec,), tmp_path)


def test_data_that_gives_fewer_images_than_it_says_is_refused(tmp_path: Path) -> None:
    class Short(Data):
        def __len__(self) -> int:
            return 131

    with pytest.raises(InputError, match="gave 130 of its 131 images"):
        inference.prepare(Short(), (TensorSpec("image", (1, 1, 2, 3), "float32"),), tmp_path)


def test_full_disk_is_an_error_and_no_crash(tmp_path: Path) -> None:
    import resource
    import signal

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1024, before[1]))  # as a disk with 1 KiB left
    try:
        with pytest.raises(OSError, match="File too large"):
            inference.prepare(Data(), (TensorSpec("image", (1, 1, 2, 3), "float32"),), tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, old)


def test_missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no input 'depth'"):
        inference.prepare(Data(), (TensorSpec("depth", (1, 1), "float32"),), tmp_path)


def test_job_names_layout_threads_and_outputs(tmp_path: Path) -> None:
    session = Session(tmp_path, np.ones((130, 2), np.float32))
    prepared = inference.prepare(Data(), (TensorSpec("image", (1, 1, 2, 3), "float32"),), tmp_path / "in")
    options = {"runtime": "onnxruntime", "delegate": "cpu", "prepared": prepared.paths, "threads": 2}
    answer = inference.run(artifact(), session, folder=tmp_path / "out", **options)  # type: ignore[arg-type]
    np.testing.assert_array_equal(answer.outputs["y"], np.ones((130, 2)))
    job, timeout = session.jobs[0]
    assert (job["layouts"], job["threads"], job["kind"]) == ({"image": "NCHW"}, 2, "eval")
    assert timeout == 120 + 2 * 130


def test_nan_is_a_failure_that_names_output_and_count(tmp_path: Path) -> None:
    bad = np.ones((130, 2), np.float32)
    bad[3, 1], bad[7, 0] = np.nan, np.inf
    prepared = inference.prepare(Data(), (TensorSpec("image", (1, 1, 2, 3), "float32"),), tmp_path / "in")
    options = {"runtime": "onnxruntime", "delegate": "cpu", "prepared": prepared.paths, "threads": 1}
    with pytest.raises(StageError, match=r"m\.onnx: output 'y' is NaN or infinite for 2 of 130 images"):
        inference.run(artifact(), Session(tmp_path, bad), folder=tmp_path / "out", **options)  # type: ignore[arg-type]
