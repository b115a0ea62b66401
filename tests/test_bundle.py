"""A bundle: what is in it, that it reproduces byte for byte, and what may not leave."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from tests.delivered import CLASSES, SIDE, edit_manifest, finished_run
from toolkit import runs
from toolkit.bundle import MANIFEST, archive, bundle, read_manifest
from toolkit.cli import cli
from toolkit.core import Verdict
from toolkit.errors import GateError, InputError


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return finished_run(tmp_path / "run")


def invoke(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def content(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]


def test_archive_is_the_same_bytes_whatever_the_order_and_the_day() -> None:
    one = archive({"b/2": b"two", "b/1": b"one"})
    assert one == archive({"b/1": b"one", "b/2": b"two"})
    # fixed for good: another machine, Python or day must not change it
    assert hashlib.sha256(one).hexdigest() == "e9b7eadef851c8d661171bd77c4f46035428e6bdc4bce2b63b54198b1dd3a1a6"
    with tarfile.open(fileobj=io.BytesIO(one)) as tar:
        found = [(m.name, m.mtime, m.uid, m.gid, m.uname, m.gname, oct(m.mode)) for m in tar.getmembers()]
    assert found == [("b/1", 0, 0, 0, "", "", "0o644"), ("b/2", 0, 0, 0, "", "", "0o644")]


def test_bundle_reproduces_from_a_copy_of_the_run_in_another_process(run: Path, tmp_path: Path) -> None:
    first = bundle(run, out=tmp_path / "first.tar").path.read_bytes()
    copy = shutil.copytree(run, tmp_path / "elsewhere" / "moved")
    for path in copy.rglob("*"):
        os.utime(path, (time.time() + 1000, time.time() + 1000))
    command = [sys.executable, "-m", "toolkit", "bundle", str(copy), "--out", str(tmp_path / "second.tar")]
    environment = {**os.environ, "TZ": "Asia/Tokyo", "LC_ALL": "C", "PYTHONHASHSEED": "7"}
    subprocess.run(command, check=True, env=environment, umask=0o077, capture_output=True)
    assert (tmp_path / "second.tar").read_bytes() == first


def test_reference_is_kept_in_the_run_and_is_the_same_when_made_anew(run: Path, tmp_path: Path) -> None:
    first = bundle(run, out=tmp_path / "first.tar")
    kept = run / "samples" / "good.onnx.reference"
    assert (kept / "reference.json").is_file()
    shutil.rmtree(kept)
    assert bundle(run, out=tmp_path / "second.tar").packed.sha256 == first.packed.sha256


def test_bundle_holds_all_that_its_user_needs(run: Path, tmp_path: Path) -> None:
    written = bundle(run, out=tmp_path / "b.tar")
    files = content(tmp_path / "b.tar")
    images = [f"reference/{i}.bmp" for i in range(16)]
    named = ["MODEL_CARD.md", "bundle.json", "good.onnx", "good.onnx.json", "labels.txt"]
    programs = ["example_onnxruntime.py", "example_openvino.py"]
    expected = sorted([*named, *programs, *images, "reference/cpu-0.npy", "reference/reference.json"])
    assert sorted(files) == [f"good.onnx.bundle/{name}" for name in expected]
    assert files["good.onnx.bundle/labels.txt"] == b"red\ngreen\nblue\n"
    described = json.loads(files[f"good.onnx.bundle/{MANIFEST}"])
    digests = {n.partition("/")[2]: hashlib.sha256(c).hexdigest() for n, c in files.items() if not n.endswith(MANIFEST)}
    assert described["files"] == digests
    assert [(v["gate"], v["outcome"]) for v in described["verdicts"]] == [("max_size_kib", "PASS")]
    assert described["run"]["source_sha256"] == "ab" * 32
    assert written.packed.sha256 == hashlib.sha256((tmp_path / "b.tar").read_bytes()).hexdigest()
    assert b"/home/someone" not in (tmp_path / "b.tar").read_bytes()


def test_manifest_of_a_bundle_reads_back_with_its_infinities(run: Path, tmp_path: Path) -> None:
    written = bundle(run, out=tmp_path / "b.tar")
    found = read_manifest(content(tmp_path / "b.tar")[f"good.onnx.bundle/{MANIFEST}"], "here")
    assert found == written.packed.bundle
    assert found.measurements[1].value == float("inf")


@pytest.mark.parametrize("name", ["../up.onnx", "/etc/passwd", "a//b", "a/./b", "a\nb"])
def test_manifest_that_names_files_elsewhere_is_refused(run: Path, tmp_path: Path, name: str) -> None:
    bundle(run, out=tmp_path / "b.tar")
    described = json.loads(content(tmp_path / "b.tar")[f"good.onnx.bundle/{MANIFEST}"])
    described["files"][name] = "0" * 64
    with pytest.raises(InputError, match="names a file elsewhere"):
        read_manifest(json.dumps(described).encode(), "there")


def test_example_decides_on_the_reference_images_as_the_answers_do(run: Path, tmp_path: Path) -> None:
    bundle(run, out=tmp_path / "b.tar")
    with tarfile.open(tmp_path / "b.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    folder = tmp_path / "good.onnx.bundle"
    images = [f"reference/{i}.bmp" for i in range(16)]
    command = [sys.executable, "example_onnxruntime.py", *images]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=folder)
    answers = np.load(folder / "reference" / "cpu-0.npy")
    assert done.stdout.splitlines() == [
        f"{image} {CLASSES[int(row.argmax())]}" for image, row in zip(images, answers, strict=True)
    ]


def test_answers_are_those_worked_out_by_hand(run: Path, tmp_path: Path) -> None:
    """Each output is the mean of a channel's x / 255 - 0.5."""
    from PIL import Image

    bundle(run, out=tmp_path / "b.tar")
    files = content(tmp_path / "b.tar")
    answers = np.load(io.BytesIO(files["good.onnx.bundle/reference/cpu-0.npy"]))
    for i, row in enumerate(answers):
        pixels = np.asarray(Image.open(io.BytesIO(files[f"good.onnx.bundle/reference/{i}.bmp"])), np.float64)
        assert pixels.shape == (SIDE, SIDE, 3)
        assert row == pytest.approx(pixels.mean(axis=(0, 1)) / 255 - 0.5, abs=1e-6)


# ---------------------------------------------------------------- what may leave


def test_failed_file_is_refused_unless_told_otherwise(run: Path, tmp_path: Path) -> None:
    refused = invoke("bundle", run, "bad.onnx", "--out", tmp_path / "b.tar")
    assert refused.exit_code == GateError.exit_code == 1
    assert "bad.onnx: failed max_size_kib on this-machine: 10 KiB, budget 9" in refused.stderr
    assert "Fix: --allow-failed" in refused.stderr
    assert not (tmp_path / "b.tar").exists()
    told = invoke("bundle", run, "bad.onnx", "--out", tmp_path / "b.tar", "--allow-failed")
    assert told.exit_code == 0
    assert "note: delivered although it failed max_size_kib on this-machine" in told.stdout


def test_open_gates_and_files_that_none_judged_are_noted(run: Path, tmp_path: Path) -> None:
    manifest = runs.read(run)
    gate = Verdict("good.onnx", "pi", "max_latency_p50_ms", "INCONCLUSIVE", None, 5.0, None, "emulated")
    runs.Run(run, manifest).update(verdicts=(*manifest.verdicts, gate))
    told = invoke("bundle", run, "good.onnx", "--out", tmp_path / "b.tar")
    assert "note: not settled: max_latency_p50_ms on pi\n" in told.stdout
    edit_manifest(run, verdicts=[])
    assert "note: no gate judged it\n" in invoke("bundle", run, "good.onnx", "--out", tmp_path / "b.tar").stdout


def test_without_a_name_the_only_file_that_passed_is_meant(run: Path, tmp_path: Path) -> None:
    assert bundle(run, out=tmp_path / "b.tar").packed.bundle.artifact == "good.onnx"
    edit_manifest(run, verdicts=[])
    with pytest.raises(InputError, match=r"could be any of good.onnx \(no gate\), bad.onnx \(no gate\)"):
        bundle(run, out=tmp_path / "c.tar")


def test_file_that_is_no_longer_what_was_judged_is_refused(run: Path) -> None:
    with (run / "artifacts" / "good.onnx").open("ab") as file:
        file.write(b"x")
    with pytest.raises(InputError, match="is not the file that was judged"):
        bundle(run)


def test_contract_that_is_no_longer_what_the_run_wrote_is_refused(run: Path, tmp_path: Path) -> None:
    contract = run / "artifacts" / "good.onnx.json"
    files = {"artifacts/good.onnx.json": runs.file_sha256(contract)}
    manifest = runs.read(run)
    export = runs.StageRecord("good.onnx", "onnx", "export", "original", "k", {}, 1.0, files=files)
    runs.Run(run, manifest).update(stages=(*manifest.stages, export))
    bundle(run, out=tmp_path / "b.tar")
    contract.write_text(contract.read_text().replace('"bilinear"', '"nearest"'))
    with pytest.raises(InputError, match=r"good\.onnx\.json: is not the contract that the run wrote"):
        bundle(run, out=tmp_path / "b.tar")


@pytest.mark.parametrize("status", ["running", "failed"])
def test_run_that_is_not_done_is_refused(run: Path, status: str) -> None:
    edit_manifest(run, status=status)
    with pytest.raises(InputError, match=f"no finished run: {status}"):
        bundle(run)


@pytest.mark.parametrize("path", ["../outside.onnx", "/etc/hostname", "artifacts/a b.onnx"])
def test_manifest_of_a_run_that_names_files_elsewhere_is_refused(run: Path, path: str) -> None:
    (run.parent / "outside.onnx").write_bytes((run / "artifacts" / "good.onnx").read_bytes())
    records = json.loads((run / "manifest.json").read_text())["artifacts"]
    edit_manifest(run, artifacts=[{**records[0], "path": path}])
    with pytest.raises(InputError, match="names a file elsewhere"):
        bundle(run, "good.onnx")


def test_class_name_with_a_line_end_leaves_labels_out_and_says_so(tmp_path: Path) -> None:
    run = finished_run(tmp_path / "run", classes=("red", "gr\neen", "blue"))
    written = bundle(run, out=tmp_path / "b.tar")
    assert "good.onnx.bundle/labels.txt" not in content(tmp_path / "b.tar")
    assert "no labels.txt: a class name holds a line end" in written.packed.bundle.notes[0]


def test_folder_that_cannot_be_written_is_one_line(run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = invoke("bundle", run, "--out", tmp_path / "file" / "b.tar")
    assert result.exit_code == 2
    assert result.stderr.count("\n") <= 2
    assert "cannot be made" in result.stderr


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs /proc")
def test_folder_that_takes_no_files_is_not_said_to_be_full(run: Path) -> None:
    result = invoke("bundle", run, "--out", "/proc/b.tar")
    assert result.exit_code == 3
    assert "cannot be written" in result.stderr and "Fix: choose another folder" in result.stderr


# ---------------------------------------------------------------- for a device


PROFILE = """
schema = 1
transport = "local"
arch = "any"

[[runtimes]]
use = "RUNTIME"
formats = ["FORMAT"]
schemes = ["float32", "int8"]
version = "VERSION"
"""


def profile(tmp_path: Path, runtime: str, format: str, version: str = "") -> Path:
    path = tmp_path / "board.toml"
    text = PROFILE.replace("RUNTIME", runtime).replace("FORMAT", format).replace("VERSION", version)
    path.write_text(text)
    return path


def test_file_that_the_devices_runtime_is_too_old_for_is_refused(tmp_path: Path) -> None:
    """IR version 9, which ONNX Runtime 1.14 does not read and 1.18 does."""
    run = finished_run(tmp_path / "run", ir_version=9)
    with pytest.raises(InputError, match=r"cannot read good.onnx: .*IR"):
        bundle(run, "good.onnx", device=str(profile(tmp_path, "onnxruntime", "onnx", "1.14.0")))
    assert bundle(run, "good.onnx", device=str(profile(tmp_path, "onnxruntime", "onnx", "1.18.0"))).path.is_file()


def test_microcontroller_gets_what_its_program_needs_and_no_deployment(finished: Any, tmp_path: Path) -> None:
    run = shutil.copytree(finished.folder, tmp_path / "run")
    board = profile(tmp_path, "tflite-micro", "tflite")
    bundle(run, "int8.tflite", device=str(board), out=tmp_path / "b.tar")
    found = content(tmp_path / "b.tar")
    array = found["int8.tflite.bundle/tflite-micro/model_data.cc"].decode()
    head = (run / "artifacts" / "int8.tflite").read_bytes()[:4]
    assert ", ".join(f"0x{byte:02x}" for byte in head) in array
    assert b"AddConv2D" in found["int8.tflite.bundle/tflite-micro/model_ops.h"]
    result = invoke("deploy", run, "int8.tflite", "--device", board)
    assert result.exit_code == 2
    assert "is a microcontroller" in result.stderr
