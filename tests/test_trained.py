"""Images to a trained model by one command, to files by one recipe; stopped and taken up; mistakes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from toolkit import pipeline, trained
from toolkit.cli import cli
from toolkit.core import Progress
from toolkit.errors import InputError, UnavailableError
from toolkit.sources import store

RECIPE = """
schema = 1
export = ["tflite"]

[data]
use = "digits"
preprocess = { scale = 0.0625, color = "gray" }

[data.splits]
selection = 300
calibration = 100
test = 400

[train]
input_size = [8, 8]
width = 16
depth = 2
epochs = 10
learning_rate = 0.01
batch_size = 64

[train.augment]
shift = 0.1
fill = "nearest"

[measure]
processes = 0
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("sklearn", reason="the digits need scikit-learn")
    path = tmp_path_factory.mktemp("recipe") / "make.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture(scope="module")
def made(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return trained.train(recipe, out=tmp_path_factory.mktemp("made") / "digits.keras")


def test_small_network_learns_to_read_digits(recipe: Path, made: Any) -> None:
    """Judged here on the file that was written, on images drawn anew."""
    from toolkit.data import load_splits
    from toolkit.engine.predict import predict_arrays
    from toolkit.recipe_reader import load_recipe

    model = store.restore(made.path)
    loaded = load_recipe(recipe)
    splits = load_splits(loaded.data, model.preprocessing, seed=loaded.seed)
    assert splits.selection is not None
    images = np.concatenate([batch.inputs["image"] for batch in splits.selection.batches(64)])
    answers = predict_arrays(model.graph, {"image": images})[0].argmax(axis=1)
    accuracy = float((answers == splits.selection.labels).mean())
    assert accuracy > 0.9
    assert accuracy == pytest.approx(max(made.curves["selection_accuracy"]), abs=1e-9)
    assert not made.path.with_name("digits.keras.training").exists()


def test_run_goes_from_images_to_files_and_reports_the_curves(recipe: Path, made: Any, tmp_path: Path) -> None:
    result = pipeline.run(recipe, out=tmp_path / "run")
    first = result.manifest.stages[0]
    assert (first.name, first.use, first.kind) == ("original", "train", "source")
    assert first.curves["loss"] == made.curves["loss"]  # the same training as the command's
    assert set(first.curves) == {"loss", "selection_accuracy", "learning_rate"}
    report = (result.folder / "report.html").read_text()
    assert "original: loss" in report and "original: rate" in report and "original: accuracy" in report
    assert not (result.folder / "checkpoints").exists()
    top1 = {m.subject: m.value for m in result.manifest.measurements if m.name == "top1"}
    assert top1["original"] > 0.9 and top1["main.tflite"] == pytest.approx(top1["original"], abs=0.01)
    again = pipeline.run(recipe, resume=tmp_path / "run")
    assert all(stage.reused for stage in again.manifest.stages)
    changed = pipeline.run(recipe, resume=tmp_path / "run", overrides=["train.epochs=1"])
    assert not changed.manifest.stages[0].reused and len(changed.manifest.stages[0].curves["loss"]) == 1


def test_command_that_was_killed_goes_on_and_ends_the_same(recipe: Path, made: Any, tmp_path: Path) -> None:
    """SIGKILL in the middle: what is left are whole checkpoints."""
    out = tmp_path / "digits.keras"
    command = [sys.executable, "-m", "toolkit", "train", str(recipe), "--out", str(out)]
    folder = tmp_path / "digits.keras.training"
    child = subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 300
    while not (folder / "scratch.npz").exists() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    _end_orphans(folder)
    assert (folder / "scratch.npz").exists() and not out.exists()
    with pytest.raises(InputError, match=r"holds a training that was not finished\. Fix: give --resume"):
        trained.train(recipe, out=out)
    said: list[Progress] = []
    found = trained.train(recipe, out=out, resume=True, emit=said.append)
    assert any("taken up after epoch" in progress.text for progress in said)
    assert found.curves == made.curves
    one, two = (store.restore(path).graph.get_weights() for path in (out, made.path))
    assert all(np.array_equal(a, b) for a, b in zip(one, two, strict=True))


def _end_orphans(folder: Path) -> None:
    """The stages' process has a session of its own: it ends as its pipe closes; wait for that."""
    before, deadline = -1.0, time.monotonic() + 120
    while time.monotonic() < deadline:
        newest = max((path.stat().st_mtime for path in folder.iterdir()), default=0.0)
        if newest == before:
            return
        before = newest
        time.sleep(2)


def test_command_prints_what_it_did(recipe: Path, tmp_path: Path) -> None:
    options = ["--set", "train.epochs=1", "--out", str(tmp_path / "a.keras")]
    found = CliRunner().invoke(cli, ["train", str(recipe), *options, "--json"])
    assert found.exit_code == 0, found.output
    told = json.loads(found.stdout)
    assert len(told["curves"]["loss"]) == 1 and told["changes"][1]["layer"] == "scratch: the whole network"


@pytest.mark.parametrize(
    ("changes", "options", "problem"),
    [
        (
            {"[train]": "[train]\nbackbone = 'n.keras'\n", "width = 16\ndepth = 2\nepochs = 10\n": ""},
            {},
            "no such file",
        ),
        ({}, {"resume": True}, "there is nothing to go on with"),
        ({}, {"out": Path("model.h5")}, "must be a .keras file"),
        ({"input_size = [8, 8]\n": ""}, {}, "train.input_size: is not given"),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, changes: dict[str, str], options: Any, problem: str) -> None:
    text = RECIPE
    for old, new in changes.items():
        text = text.replace(old, new)
    text = text.replace("learning_rate = 0.01\n", "")
    (tmp_path / "r.toml").write_text(text)
    with pytest.raises(InputError, match=problem) as error:
        trained.train(tmp_path / "r.toml", **{"out": tmp_path / "a.keras", **options})
    assert "\n" not in str(error.value)


def test_recipe_without_train_is_refused(recipe_file: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"has no \[train\] section"):
        trained.train(recipe_file, out=tmp_path / "a.keras")


def test_download_that_fails_is_exit_3_and_no_random_weights(recipe: Path, tmp_path: Path) -> None:
    """The proxy is a closed port, so that no network answers; nothing is written."""
    text = RECIPE.replace('color = "gray"', 'color = "rgb"').replace("width = 16\ndepth = 2\nepochs = 10\n", "")
    text = text.replace("learning_rate = 0.01\n", "")
    path = tmp_path / "r.toml"
    path.write_text(text.replace("[8, 8]", '[32, 32]\nbackbone = "keras.applications.MobileNetV2"\nweights="imagenet"'))
    closed = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**closed, "KERAS_HOME": str(tmp_path / "empty")}.items():
            patch.setenv(name, value)
        with pytest.raises(UnavailableError, match="cannot be downloaded") as error:
            trained.train(path, out=tmp_path / "a.keras")
    assert error.value.exit_code == 3 and not (tmp_path / "a.keras").exists()


# ---------------------------------------------------------------- real images


@pytest.mark.data
@pytest.mark.slow
def test_trashnet_is_learned_from_a_real_backbone(tmp_path: Path) -> None:
    """One shipped recipe; the model that came with these images reaches 85.4% of 431 test images."""
    root = Path(os.environ.get("EDGEKIT_DATA", ""))
    if not os.environ.get("EDGEKIT_DATA"):
        pytest.skip("EDGEKIT_DATA is not set")
    backbone = root / "models" / "mobilenet_v2_100_224_imagenet_from_int8.keras"
    splits = {"train": "train", "selection": "val", "test": "test"}
    overrides = [f"train.backbone={backbone}", 'data.splits.calibration={ from = "train", count = 100 }']
    overrides += [f"data.splits.{name}={part}" for name, part in splits.items()] + ["measure.processes=0"]
    overrides += ['variants=[{ name = "float", export = ["tflite"] }]']  # the training alone
    images = root / "data" / "trashnet6_160.npz"
    result = pipeline.run("transfer-then-compress", data=str(images), overrides=overrides, out=tmp_path / "run")
    top1 = {m.subject: m.value for m in result.manifest.measurements if m.name == "top1"}
    assert top1["original"] > 0.854 - 0.03
