"""Whole runs of models that do not give one class: several labels, an embedding, numbers; each judged on its own score.

Images are 8 x 8, one pixel row pair bright for each of four things; the models are set by hand, so that what they must
answer is known. Dataset and metric come by entry point, as another package's would.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit import pipeline, runs
from toolkit.errors import InputError
from toolkit.measuring import evaluate_file, measurement_lines
from toolkit.report.numbers import show
from toolkit.report.text import summary_lines

THINGS = 4
PLUGIN = '''
from typing import ClassVar, Literal
import numpy as np
from toolkit.core import Records
from toolkit.schema import Component


class Rows(Component):
    """Images with bright rows."""

    task: Literal["classes", "labels", "values"] = "labels"
    """What the targets are."""

    def load(self):
        rng = np.random.default_rng(0)
        held = rng.random((240, 4)) < 0.4
        if self.task == "classes":
            held = np.eye(4, dtype=bool)[np.arange(240) % 4]
        light = np.where(held, rng.uniform(0.6, 1.0, held.shape), rng.uniform(0.0, 0.45, held.shape))
        images = (255 * np.repeat(light, 2, axis=1)[:, :, None, None] * np.ones((1, 1, 8, 1))).astype(np.uint8)
        labels = {"classes": np.arange(240) % 4, "labels": held.astype(np.uint8), "values": light.astype(np.float32)}
        names = tuple(map(str, range(240)))
        subsets = ("train",) * 40 + ("test",) * 200
        read = lambda index: images[index]
        content = lambda index: images[index].tobytes() + bytes([index])
        return Records("rows", names, labels[self.task], subsets, tuple("abcd"), read, content, self.task)


class Largest(Component):
    """Mean of the largest output."""

    name: ClassVar[str] = "largest"
    heads: ClassVar[tuple[str, ...]] = ("sigmoids", "embedding", "regression")
    tasks: ClassVar[tuple[str, ...]] = ("classes", "labels", "values")
    unit: ClassVar[str] = "output"
    higher_is_better: ClassVar[bool] = True
    estimate: ClassVar[str] = "mean"
    against: ClassVar[bool] = False

    def per_example(self, outputs, targets, head, *, original=None):
        return outputs.max(axis=1)

    def reduce(self, values):
        return float(values.mean())

    def left_out(self, values):
        return ""
'''
POINTS = """[edgekit.datasets]
rows = edgekit_rows:Rows
[edgekit.metrics]
largest = edgekit_rows:Largest
"""
RECIPE = """
schema = 1
metrics = ["largest"]

[model]
head = "{head}"

[data]
use = "rows"
task = "{task}"
preprocess = "unit"

[data.splits]
train = "train"
test = "test"

[[variants]]
name = "float"
export = ["tflite", "onnx"]

[[variants]]
name = "small"
export = ["tflite"]

[[variants.passes]]
use = "quantize"
scheme = "float16"

[budget]
{budget}

[measure]
processes = 0
"""


@dataclass(frozen=True)
class Case:
    """A head, its data, its budget, and the name of its score."""

    head: str
    task: str
    budget: str
    score: str


CASES = (
    Case(
        "sigmoids",
        "labels",
        "max_accuracy_drop = 0.05\nmax_class_drop = 0.2\nmin_agreement = 0.8",
        "mean_average_precision",
    ),
    Case("embedding", "classes", "max_accuracy_drop = 0.05\nmin_cosine = 0.95", "retrieval_at_1"),
    Case("regression", "values", "max_error_increase = 0.5", "mae"),
)


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package that brings a dataset and a metric, for this process and those it starts."""
    package = tmp_path / "site"
    info = package / "edgekit_rows-1.0.dist-info"
    info.mkdir(parents=True)
    (package / "edgekit_rows.py").write_text(PLUGIN)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: edgekit-rows\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(POINTS)
    monkeypatch.syspath_prepend(package)
    monkeypatch.setenv("PYTHONPATH", str(package))


def model(folder: Path, head: str) -> Path:
    """Means of the row pairs: as probabilities sharply above one half where bright, as numbers, or as a vector."""
    import keras
    from keras import layers

    image = keras.Input((8, 8, 1), name="image")
    x = layers.Flatten(name="flatten")(image)
    x = layers.Dense(THINGS, activation="sigmoid" if head == "sigmoids" else None, name="out")(x)
    network = keras.Model(image, x)
    means = np.kron(np.eye(THINGS), np.full((16, 1), 1 / 16)).astype(np.float32)
    scale, shift = {"sigmoids": (20.0, -10.5), "embedding": (1.0, -0.5), "regression": (1.0, 0.05)}[head]
    network.get_layer("out").set_weights([means * scale, np.full(THINGS, shift, np.float32)])
    network.save(folder / "model.keras")
    return folder / "model.keras"


def written(folder: Path, case: Case, **changes: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(RECIPE.format(**{"head": case.head, "task": case.task, "budget": case.budget, **changes}))
    return path


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.head)
@pytest.mark.usefixtures("plugin")
def test_a_whole_run_judges_the_heads_own_score(tmp_path: Path, case: Case) -> None:
    result = pipeline.run(written(tmp_path, case), model=model(tmp_path, case.head), out=tmp_path / "run")
    manifest = runs.read(result.folder)
    assert manifest.outcome == "PASS", [verdict.reason for verdict in manifest.verdicts]
    values = {(m.subject, m.name): m.value for m in manifest.measurements}
    assert values["original", case.score] == pytest.approx(0.05 if case.head == "regression" else 1.0, abs=0.003)
    assert values["float.tflite", case.score] == pytest.approx(values["original", case.score], abs=1e-4)
    gates = {verdict.gate for verdict in manifest.verdicts}
    assert gates == {line.partition(" ")[0] for line in case.budget.splitlines()}
    assert len(manifest.verdicts) == 3 * len(gates)
    answers = np.load(result.folder / "samples" / "small.tflite@this-machine.answers.npz")["out"]
    assert values["small.tflite", "largest"] == pytest.approx(answers.max(axis=1).mean())
    details = manifest.details["small.tflite"]
    assert (details.head, details.device) == (case.head, "this-machine")
    _check_details(case.head, details, answers)
    report = (result.folder / "report.html").read_text()
    assert 'id="metrics"' in report
    assert not manifest.warnings
    line = next(line for line in summary_lines(manifest) if line.startswith("float.tflite"))
    assert show(case.score, values["float.tflite", case.score]) in line


def _check_details(head: str, details: Any, answers: np.ndarray) -> None:
    if head == "sigmoids":
        assert [label.f1 for label in details.labels] == [1.0] * THINGS
        assert {curve.auc for curve in details.roc} == {1.0}
    if head == "embedding":
        assert sum(details.cosines.counts) == 200
    if head == "regression":
        assert [column.mae for column in details.columns] == pytest.approx([0.05] * THINGS, abs=0.003)


@pytest.mark.usefixtures("plugin")
def test_eval_prints_the_metrics_of_the_head(tmp_path: Path) -> None:
    source = model(tmp_path, "sigmoids")
    found = evaluate_file(source, data="rows", preprocess="unit", subset="test")
    values = {row["name"]: row["value"] for row in found["measurements"]}
    assert set(values) == {"mean_average_precision", "label_f1", "exact_match", "ties"}
    assert values["mean_average_precision"] == values["exact_match"] == 1.0
    assert [row["correct"] for row in found["per_class"]] == [200] * THINGS
    assert any("mean_average_precision  100.0%" in line for line in measurement_lines(found))
    with pytest.raises(InputError, match="head is 'softmax', which needs one class an image; the data gives several"):
        evaluate_file(source, data="rows", preprocess="unit", head="softmax")
    with pytest.raises(InputError, match="--head: no such head, got 'sigmods'"):
        evaluate_file(source, data="rows", head="sigmods")


@pytest.mark.usefixtures("plugin")
def test_a_regression_with_an_accuracy_budget_is_refused_before_any_work(tmp_path: Path) -> None:
    recipe = written(tmp_path, CASES[2], budget="max_accuracy_drop = 0.01")
    with pytest.raises(InputError, match=r"recipe.toml:.*max_accuracy_drop: a regression has no accuracy") as caught:
        pipeline.run(recipe, model=_nothing(tmp_path), out=tmp_path / "run")
    assert caught.value.exit_code == 2
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("plugin")
def test_a_metric_of_another_head_and_an_unknown_one_are_refused_before_any_work(tmp_path: Path) -> None:
    recipe = written(tmp_path, CASES[2])
    for name, problem in (
        ("f1", "metrics: f1: takes logits"),
        ("largst", "no such metric, got 'largst'. Fix: did you"),
    ):
        recipe.write_text(recipe.read_text().replace('"largest"', f'"{name}"'))
        with pytest.raises(InputError, match=problem):
            pipeline.run(recipe, model=_nothing(tmp_path), out=tmp_path / "run")
        recipe.write_text(recipe.read_text().replace(f'"{name}"', '"largest"'))


@pytest.mark.usefixtures("plugin")
def test_labels_of_one_class_for_several_sigmoids_are_refused_before_any_pass(tmp_path: Path) -> None:
    recipe = written(tmp_path, CASES[0], head="auto", task="classes")
    with pytest.raises(InputError, match="head is 'sigmoids', which needs several labels an image; the data gives one"):
        pipeline.run(recipe, model=model(tmp_path, "sigmoids"), out=tmp_path / "run")
    assert [stage.name for stage in runs.read(tmp_path / "run").stages] == ["original"]


def _nothing(folder: Path) -> Path:
    """A file that is no model: whoever reads it finds out."""
    path = folder / "model.keras"
    path.write_bytes(b"")
    return path
