"""The main job end to end on real digits: what it says is checked by other means; it stops and goes on."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit import pipeline, runs
from toolkit.core import Progress
from toolkit.digest import file_sha256
from toolkit.errors import InputError, StageError
from toolkit.exporters import onnx_file, tflite_file

ROOT = Path(__file__).resolve().parents[1]


def value(manifest: runs.Manifest, subject: str, name: str, device: str = "") -> float:
    found = [m.value for m in manifest.measurements if (m.subject, m.name) == (subject, name) and m.device == device]
    assert len(found) == 1, (subject, name, device)
    return found[0]


def again(finished: Any, folder: Path, recipe: Path, model: Path, **options: Any) -> Any:
    """The finished run's directory, copied and taken up again."""
    shutil.copytree(finished.folder, folder)
    return pipeline.run(recipe, model=model, resume=folder, **options)


def test_run_leaves_what_it_says(finished: Any) -> None:
    manifest = runs.read(finished.folder)
    assert manifest == finished.manifest
    assert (manifest.status, manifest.error) == ("done", "")
    names = [stage.name for stage in manifest.stages if stage.kind != "check"]
    assert names == [
        "original",
        "original.tflite",
        "original.onnx",
        "01-prune",
        "02-distill",
        "float.tflite",
        "int8.03-quantize",
        "int8.tflite",
        "int8.onnx",
    ]
    for artifact in manifest.artifacts:
        path = finished.folder / artifact.path
        assert (path.stat().st_size, file_sha256(path)) == (artifact.size_bytes, artifact.sha256)
    assert not (finished.folder / "scratch").exists()
    assert "<html" in (finished.folder / "report.html").read_text()


def test_accuracy_of_the_int8_file_equals_an_independent_evaluation(finished: Any, judged: Any) -> None:
    from ai_edge_litert.interpreter import Interpreter

    images, labels = judged
    interpreter = Interpreter(model_path=str(finished.folder / "artifacts" / "int8.tflite"), num_threads=1)
    runner = interpreter.get_signature_runner()
    right = [
        int(np.argmax(runner(image=image[None])["classes"])) == label
        for image, label in zip(images, labels, strict=True)
    ]
    assert value(finished.manifest, "int8.tflite", "top1", "this-machine") == pytest.approx(np.mean(right), abs=1e-9)


def test_nchw_file_is_fed_channels_first(finished: Any, judged: Any) -> None:
    import onnxruntime

    images, labels = judged
    session = onnxruntime.InferenceSession(str(finished.folder / "artifacts" / "int8.onnx"))
    assert session.get_inputs()[0].shape == [1, 1, 8, 8]
    answers = [session.run(None, {"image": image.transpose(2, 0, 1)[None]})[0][0] for image in images]
    mean = np.mean(np.argmax(answers, axis=1) == labels)
    assert value(finished.manifest, "int8.onnx", "top1", "this-machine") == pytest.approx(mean, abs=1e-9)


def test_float_file_agrees_with_the_stage_it_was_written_from(finished: Any) -> None:
    assert value(finished.manifest, "original.tflite", "agreement", "this-machine") == 1.0
    stage = np.load(finished.folder / "samples" / "02-distill.answers.npz")["classes"]
    file = np.load(finished.folder / "samples" / "float.tflite@this-machine.answers.npz")["classes"]
    np.testing.assert_allclose(stage, file, atol=1e-5)


def test_pruned_stage_is_smaller_and_counted(finished: Any) -> None:
    manifest = finished.manifest
    # conv1 3x3x1 of 12 on 4x4, conv2 3x3x12 of 16 on 4x4, dense 256 x 10
    assert value(manifest, "original", "macs") == 16 * 9 * 12 + 16 * 9 * 12 * 16 + 256 * 10
    # half of 12 rounds to 8 (multiples of 4, halves up) or 4; whichever it is, the layers say so
    kept = {
        c["layer"]: int(c["after"].split()[0])
        for s in manifest.stages
        for c in s.changes
        if s.name == "01-prune" and c["after"].endswith(("channels", "channel"))
    }
    one, two = kept["conv1"], kept["conv2"]
    assert two == 8
    assert value(manifest, "01-prune", "macs") == 16 * 9 * one + 16 * 9 * one * two + 16 * two * 10
    assert value(manifest, "int8.tflite", "macs") == value(manifest, "01-prune", "macs")


def test_every_latency_says_how_it_was_measured(finished: Any) -> None:
    found = [m for m in finished.manifest.measurements if m.name == "latency_p50_ms"]
    assert {m.subject for m in found} == {
        "original.tflite",
        "original.onnx",
        "01-prune",
        "02-distill",
        "float.tflite",
        "int8.tflite",
        "int8.onnx",
    }
    for measurement in found:
        assert measurement.source == "measured"
        raw = np.load(finished.folder / "samples" / f"{measurement.subject}@this-machine.latency.npz")
        assert measurement.how["processes"] == len(raw.files)
        assert measurement.value == pytest.approx(min(np.median(raw[name]) for name in raw.files) / 1e6)


def test_every_file_is_explained_by_the_profile_that_was_kept(finished: Any) -> None:
    manifest = finished.manifest
    assert {(speed.artifact, speed.device) for speed in manifest.speeds} == {
        (artifact.name, "this-machine") for artifact in manifest.artifacts
    }
    for speed in manifest.speeds:
        kept = json.loads((finished.folder / "samples" / f"{speed.artifact}@this-machine.layers.json").read_text())
        assert kept["sha256"] == speed.sha256
        timed = [layer.measured for layer in speed.layers if layer.measured is not None]
        assert bool(timed) == bool(kept["layers"])
        assert not timed or sum(timed) == pytest.approx(1.0)


def test_resume_of_a_finished_run_repeats_nothing(
    finished: Any, tmp_path: Path, recipe_file: Path, digits_model: Path
) -> None:
    result = again(finished, tmp_path / "run", recipe_file, digits_model)
    assert all(stage.reused for stage in result.manifest.stages)
    assert result.manifest.verdicts == finished.manifest.verdicts
    assert {(a.name, a.sha256) for a in result.manifest.artifacts} == {
        (a.name, a.sha256) for a in finished.manifest.artifacts
    }


def test_resume_repeats_what_depends_on_a_changed_parameter_and_nothing_else(
    finished: Any, tmp_path: Path, recipe_file: Path, digits_model: Path
) -> None:
    change = ["variants.int8.passes.quantize.granularity=per_tensor"]
    result = again(finished, tmp_path / "run", recipe_file, digits_model, overrides=change)
    again_done = {stage.name for stage in result.manifest.stages if not stage.reused}
    assert again_done == {
        "int8.03-quantize",
        "int8.tflite",
        "int8.onnx",
        "answers:int8.tflite@this-machine",
        "answers:int8.onnx@this-machine",
        "latency@this-machine",
    }


def test_damaged_stage_file_is_made_and_timed_again(
    finished: Any, tmp_path: Path, recipe_file: Path, digits_model: Path
) -> None:
    """The new file is that of before, byte for byte: its answers are known, its latency went with the old one's."""
    shutil.copytree(finished.folder, tmp_path / "run")
    file = tmp_path / "run" / "artifacts" / "float.tflite"
    file.write_bytes(file.read_bytes()[:-100])
    result = pipeline.run(recipe_file, model=digits_model, resume=tmp_path / "run")
    assert [s.name for s in result.manifest.stages if not s.reused] == ["float.tflite", "latency@this-machine"]
    assert file.read_bytes() == (finished.folder / "artifacts" / "float.tflite").read_bytes()
    numbers = [
        {(m.subject, m.name, m.device) for m in run.measurements} for run in (result.manifest, finished.manifest)
    ]
    assert numbers[0] == numbers[1]


def test_ctrl_c_while_the_report_is_written_leaves_the_verdict_and_says_how_to_write_it(
    finished: Any, tmp_path: Path, recipe_file: Path, digits_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "write_report", interrupted)
    said: list[Progress] = []
    with pytest.raises(KeyboardInterrupt):
        again(finished, tmp_path / "run", recipe_file, digits_model, emit=said.append)
    assert said[-1].text == f"the run is done; `edgekit report {tmp_path / 'run'}` writes its report"
    manifest = runs.read(tmp_path / "run")
    assert (manifest.status, manifest.outcome) == ("done", finished.manifest.outcome)


def converter_processes() -> list[int]:
    """Children of this process that serve stages."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if parent == os.getpid() and b"toolkit.stages" in command:
                found.append(int(entry.name))
    return found


def test_killed_converter_is_a_failed_stage_and_resume_ends_with_the_same_files(
    finished: Any, tmp_path: Path, recipe_file: Path, digits_model: Path
) -> None:
    def kill(progress: Progress) -> None:
        if progress.text.endswith("int8.tflite"):
            for pid in converter_processes():
                os.kill(pid, signal.SIGKILL)

    with pytest.raises(StageError, match="SIGKILL"):
        pipeline.run(recipe_file, model=digits_model, out=tmp_path / "run", emit=kill)
    stopped = runs.read(tmp_path / "run")
    assert stopped.status == "failed"
    assert "SIGKILL" in stopped.error
    assert [a.name for a in stopped.artifacts][-1] == "float.tflite"
    result = pipeline.run(resume=tmp_path / "run")
    assert (result.manifest.status, result.manifest.error) == ("done", "")
    reused = {stage.name for stage in result.manifest.stages if stage.reused}
    assert {"original", "01-prune", "02-distill", "float.tflite"} <= reused
    for name, canonical in (("int8.tflite", tflite_file.canonical_hash), ("int8.onnx", onnx_file.canonical_hash)):
        files = (folder / "artifacts" / name for folder in (tmp_path / "run", finished.folder))
        first, second = map(canonical, files)
        assert first == second


def test_interrupt_says_so_in_the_manifest_and_leaves_no_process(
    tmp_path: Path, recipe_file: Path, digits_model: Path
) -> None:
    def interrupt(progress: Progress) -> None:
        if progress.text.endswith("01-prune"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.run(recipe_file, model=digits_model, out=tmp_path / "run", emit=interrupt)
    manifest = runs.read(tmp_path / "run")
    assert (manifest.status, manifest.error) == ("failed", "interrupted by the user")
    assert not converter_processes()
    assert not (tmp_path / "run" / "scratch").exists()


def test_manifest_of_a_run_fits_the_published_schema(finished: Any) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    schema = json.loads((ROOT / "docs" / "manifest.schema.json").read_text())
    jsonschema.Draft202012Validator(schema).validate(json.loads((finished.folder / "manifest.json").read_text()))


def test_log_has_every_line_its_time_and_what_ran(
    finished: Any, tmp_path: Path, recipe_file: Path, digits_model: Path
) -> None:
    shutil.copytree(finished.folder, tmp_path / "run")
    (tmp_path / "run" / "log.txt").unlink()
    shown: list[Progress] = []
    wrong = "variants.int8.passes.quantize.layers={nowhere='float32'}"  # its own process finds that out
    with pytest.raises(InputError, match="nowhere"):
        pipeline.run(recipe_file, model=digits_model, resume=tmp_path / "run", overrides=[wrong], emit=shown.append)
    log = (tmp_path / "run" / "log.txt").read_text()
    for progress in shown:
        assert not progress.keep or re.search(rf"(?m)^[-0-9T:]+Z {re.escape(progress.text)}$", log), progress.text
    assert f"edgekit 0.1.0 run: recipe {recipe_file}" in log
    for package in ("tensorflow", "keras", "onnxruntime", "numpy"):
        assert f"{package} {finished.manifest.versions[package]}" in log
    assert log.count("Traceback (most recent call last)") >= 2  # where it was found, and where it was asked for
    assert "toolkit/passes/quantize.py" in log
    assert not any("Traceback" in progress.text for progress in shown)


def test_every_split_is_a_named_sample_whose_images_are_listed(finished: Any) -> None:
    for record in finished.manifest.data:
        listed = json.loads((finished.folder / record.ids).read_text(encoding="utf-8"))
        assert (listed["name"], listed["fingerprint"]) == (record.name, record.fingerprint)
        assert len(set(listed["ids"])) == record.images
    names = {record.split: record.name for record in finished.manifest.data}
    assert names["calibration"] == "calibration: 100 of 1797, seed 0"


def test_answers_carry_the_ids_of_their_images(finished: Any) -> None:
    test = next(record for record in finished.manifest.data if record.split == "test")
    listed = json.loads((finished.folder / test.ids).read_text(encoding="utf-8"))["ids"]
    files = sorted((finished.folder / "samples").glob("*.answers.npz"))
    assert len(files) >= 5
    for file in files:
        with np.load(file) as answers:
            assert answers["example ids"].tolist() == listed
            assert len(answers["classes"]) == len(listed)


def test_left_out_images_are_in_the_manifest_and_the_order_of_classes_is_checked(
    tmp_path: Path, recipe_file: Path, digits_model: Path
) -> None:
    """200 digits as files, one cut short; the model is said to list its classes the other way round."""
    from PIL import Image
    from sklearn.datasets import load_digits

    for index, (image, label) in enumerate(zip(*load_digits(return_X_y=True), strict=True)):
        if index < 200:
            path = tmp_path / "digits" / f"digit {label}" / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image.reshape(8, 8).astype(np.uint8)).save(path)
    (tmp_path / "digits" / "digit 0" / "0.png").write_bytes(b"cut")
    options: dict[str, Any] = {"model": digits_model, "data": str(tmp_path / "digits")}
    splits = ["data.splits.test=50", "data.splits.selection=20", "data.splits.calibration=100"]
    names = json.dumps([f"digit {9 - index}" for index in range(10)])
    with pytest.raises(InputError, match=r"class 0 is 'digit 9' in the model \(the data's class 9\), 'digit 0' in the"):
        pipeline.run(recipe_file, **options, overrides=[*splits, f"model.classes={names}"], out=tmp_path / "run")
    names = json.dumps([f"digit {index}" for index in range(10)])
    short = ["passes=[]", 'variants=[{name="a", export=["tflite"]}]', "measure.processes=0", f"model.classes={names}"]
    done = pipeline.run(recipe_file, **options, overrides=[*splits, *short], out=tmp_path / "done")
    (left,) = done.manifest.left_out
    assert (left.reason, left.images) == ("unreadable", 1)
    assert left.names[0].startswith("digit 0/0.png: cannot be read as an image")
    assert sum(record.images for record in done.manifest.data) == 199
    assert json.loads((done.folder / "samples" / "left-out.json").read_text())[0]["names"] == list(left.names)
    assert any("1 images cannot be read" in warning for warning in done.manifest.warnings)


def test_data_of_other_classes_is_refused_before_any_work(
    tmp_path: Path, recipe_file: Path, digits_model: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 255, (300, 8, 8, 1), dtype=np.uint8)
    np.savez(tmp_path / "three.npz", images=images, labels=np.arange(300) % 3)
    with pytest.raises(InputError, match="the model has 10 classes, the data has 3"):
        pipeline.run(
            recipe_file,
            model=digits_model,
            data=str(tmp_path / "three.npz"),
            overrides=["data.splits.test=100", "data.splits.selection=50"],
            out=tmp_path / "run",
        )
    assert not any((tmp_path / "run" / "artifacts").glob("*.tflite"))


def test_wrong_labels_are_told_apart_from_a_bad_model(
    finished: Any, tmp_path: Path, recipe_file: Path, digits_model: Path
) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    shifted = (digits.target + 1) % 10
    np.savez(tmp_path / "shifted.npz", images=digits.images.astype(np.uint8)[..., None], labels=shifted)
    recipe = tmp_path / "short.toml"
    recipe.write_text(
        'schema = 1\nexport = ["tflite"]\n[data]\npath = "shifted.npz"\npreprocess = { scale = 0.0625 }\n'
        "[data.splits]\ntest = 300\n[measure]\nprocesses = 1\nseconds = 0.01\n"
    )
    result = pipeline.run(recipe, model=digits_model, out=tmp_path / "run")
    assert any("check the order of the classes" in warning for warning in result.manifest.warnings)
    assert not any("check the order" in warning for warning in finished.manifest.warnings)


def test_report_is_written_anew_from_the_manifest_alone(finished: Any, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes((finished.folder / "manifest.json").read_bytes())
    changed = finished.manifest.changed
    assert {tally.subject for tally in changed.tallies} == {item.name for item in finished.manifest.artifacts}
    assert len(changed.images) == min(12, len({image.place for image in changed.images}))
    if changed.images:  # and its thumbnails
        shutil.copytree(finished.folder / "samples" / "changed", tmp_path / "samples" / "changed")
    path = pipeline.write_report(tmp_path)
    assert path.read_bytes() == (finished.folder / "report.html").read_bytes()
    run = runs.Run(tmp_path, replace(finished.manifest, name="other"))
    run.update()
    assert pipeline.write_report(tmp_path).read_bytes() != (finished.folder / "report.html").read_bytes()
