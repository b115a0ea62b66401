"""The repair ladder: in order, on selection, until the first PASS; nothing helping is told as it is."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from toolkit import pipeline, repair, runs
from toolkit.core import Artifact, Signature
from toolkit.documents import Document
from toolkit.errors import InputError, UnsupportedError
from toolkit.plan import Plan, make_plan
from toolkit.recipe_reader import parse_recipe
from toolkit.selecting import Judged

RECIPE = """
schema = 1
[model]
source = "model.keras"
[data]
use = "digits"
preprocess = { scale = 0.0625 }
[data.splits]
selection = 600
calibration = 50
test = 400
[[variants]]
name = "int8"
export = ["tflite"]
[[variants.passes]]
use = "quantize"
scheme = "int8"
granularity = "per_tensor"
[budget]
max_accuracy_drop = 0.05
[measure]
processes = 0
[repair]
"""


def parsed(text: str) -> Any:
    return parse_recipe(Document("small.toml", tomllib.loads(text)), Path.cwd())


def planned(repairs: str = "", text: str = RECIPE) -> Plan:
    return make_plan(parsed(text + repairs))


@dataclass
class Bench:
    """A run whose stages only note themselves; judged: what each pass comes to on selection."""

    judged: Any
    sensitive: tuple[str, ...] = ("conv2", "conv1", "classes", "other")
    refuses: Any = lambda component: False
    carried: list[str] = field(default_factory=list)
    component: Any = None
    repairs: dict[str, Any] = field(default_factory=dict)
    files: Any = tuple(SimpleNamespace(name=f"int8.{format}") for format in ("tflite", "onnx"))

    def stage(self, stage: Any) -> None:
        self.carried.append(stage.use)
        if stage.kind == "pass":
            self.component = stage.component
            if self.refuses(stage.component):
                raise UnsupportedError("conv1", "cannot be written")

    def artifact(self, name: str) -> Artifact:
        return Artifact(name, Path(name), "tflite", "int8", 1000, "", Signature((), ()))

    @property
    def manifest(self) -> Any:
        return SimpleNamespace(repairs=self.repairs, artifacts=self.files)

    def update(self, repairs: dict[str, Any]) -> None:
        self.repairs = repairs

    def climb(self, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> tuple[Plan, Any]:
        self.component = next(stage.component for stage in plan.stages if stage.use == "quantize")
        bench = self

        class Judge:
            split = None

            def __init__(self, *_: Any) -> None: ...
            def ask_original(self, *_: Any) -> None: ...
            def close(self) -> None: ...
            def judge(self, _: Any) -> Judged:
                found: Judged = bench.judged(bench.component)
                return found

        rows = tuple(SimpleNamespace(layer=name, gain_db=3.0 - i) for i, name in enumerate(self.sensitive))
        told = SimpleNamespace(of_record=lambda *_: SimpleNamespace(sensitive=rows))
        monkeypatch.setattr(repair, "Selecting", Judge)
        monkeypatch.setattr(repair, "Diagnoser", lambda *_, **__: told)
        splits = SimpleNamespace(train=[1], selection=[1])
        run: Any = SimpleNamespace(manifest=self.manifest, update=self.update, folder=Path())
        work = repair.Work(run, splits, Path(), None, self.stage, self.artifact, Path, "seen", lambda _: None)  # type: ignore[arg-type]
        changed = repair.repair(plan, work)
        return changed, self.repairs.get("int8")


def fails(component: Any) -> Judged:
    """Loses 30 points, however it is quantized."""
    return Judged("FAIL", "lost", loss=0.3)


def chosen(plan: Plan) -> Any:
    return next(stage for stage in plan.stages if stage.kind == "pass")


def test_variant_that_passes_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    bench, plan = Bench(lambda _: Judged("PASS", "", loss=0.0)), planned()
    changed, record = bench.climb(plan, monkeypatch)
    assert (changed, bench.carried) == (plan, [])
    assert [trial.rung for trial in record.trials] == ["as asked"]


def test_ladder_stops_at_the_first_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(component: Any) -> Judged:
        return Judged("PASS", "", loss=0.0) if component.ranges == "percentile" else fails(component)

    bench = Bench(judged)
    changed, record = bench.climb(planned(), monkeypatch)
    tried = [(trial.change, trial.outcome) for trial in record.trials]
    assert tried == [("as the recipe has it", "FAIL"), ('ranges = "mse"', "FAIL"), ('ranges = "percentile"', "PASS")]
    assert record.chosen == 2
    assert (chosen(changed).component.ranges, chosen(changed).component.granularity) == ("percentile", "per_tensor")
    assert bench.carried == ["quantize", "tflite"] * 2


def test_mix_grows_layer_by_layer_until_it_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(component: Any) -> Judged:
        enough = {"conv1", "conv2"} <= component.layers.keys()
        return Judged("PASS", "", loss=0.0) if enough else fails(component)

    changed, record = Bench(judged).climb(planned('rungs = ["mixed"]'), monkeypatch)
    assert [trial.change for trial in record.trials[1:]] == [
        "int16x8: conv2",
        "float32: conv2",
        "int16x8: conv2, conv1",
    ]
    assert dict(chosen(changed).quant.layers) == {"conv1": "int16x8", "conv2": "int16x8"}


def mixed(record: Any) -> list[tuple[str, str]]:
    return [(trial.change, trial.outcome) for trial in record.trials[1:]]


FLOATS = [("float32: conv2", "FAIL"), ("float32: conv2, conv1", "FAIL")]


def test_mix_for_onnx_is_of_float_layers_and_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = planned('rungs = ["mixed"]', RECIPE.replace('"tflite"', '"onnx"'))
    _, record = Bench(fails).climb(plan, monkeypatch)
    assert mixed(record) == [("int16x8: conv2", "NOT TRIED"), *FLOATS]
    assert "no 16-bit kernels of convolutions" in record.trials[1].reason


def test_mix_has_no_scheme_that_a_device_cannot_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = tmp_path / "board.toml"
    runtime = "[[runtimes]]\nuse = 'litert'\nformats = ['tflite']\nschemes = ['float32', 'int8']"
    board.write_text(f"schema = 1\narch = 'any'\n{runtime}")
    target = f'rungs = ["mixed"]\n[[targets]]\ndevice = "{board}"'
    _, record = Bench(fails).climb(planned(target), monkeypatch)
    assert mixed(record) == [("int16x8: conv2", "NOT TRIED"), *FLOATS]
    assert "cannot run int8 tflite files with layers in int16x8" in record.trials[1].reason


def test_scheme_that_breaks_the_size_or_latency_budget_gets_no_more_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(component: Any) -> Judged:
        return Judged("FAIL", "lost", fits="float32" not in component.layers.values(), loss=0.3)

    _, record = Bench(judged).climb(planned('rungs = ["mixed"]'), monkeypatch)
    assert mixed(record) == [("int16x8: conv2", "FAIL"), ("float32: conv2", "FAIL"), ("int16x8: conv2, conv1", "FAIL")]


def test_inconclusive_trial_stays_rather_than_one_that_fails_and_loses_less(monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(component: Any) -> Judged:
        return Judged("INCONCLUSIVE", "few", loss=0.02) if component.ranges == "mse" else Judged("FAIL", "", loss=0.01)

    _, record = Bench(judged).climb(planned('rungs = ["calibration"]'), monkeypatch)
    assert record.trials[record.chosen].change == 'ranges = "mse"'


def test_what_kernels_need_stays_in_the_repaired_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = tmp_path / "board.toml"
    runtime = "[[runtimes]]\nuse = 'litert'\nformats = ['tflite']\nschemes = ['float32', 'int8']"
    board.write_text(
        f"schema = 1\narch = 'any'\n{runtime}\nkernels = [{{ fact = 'dense_per_tensor', source = 'a page' }}]"
    )
    text = RECIPE.replace("per_tensor", "per_channel")
    plan = planned(f'[[targets]]\ndevice = "{board}"', text)
    changed, _ = Bench(lambda c: Judged("PASS" if c.ranges == "mse" else "FAIL", "")).climb(plan, monkeypatch)
    quant = changed.stage("int8.tflite").quant
    assert (quant.ranges, quant.dense_per_tensor) == ("mse", True)


def test_files_are_written_as_the_chosen_pass_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    changed, _ = Bench(lambda c: Judged("PASS" if c.ranges == "mse" else "FAIL", "")).climb(planned(), monkeypatch)
    assert changed.stage("int8.tflite").quant.ranges == "mse"
    assert changed.stage("original.tflite").quant == planned().stage("original.tflite").quant


def test_where_nothing_helps_the_best_stays_and_all_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(component: Any) -> Judged:
        return Judged("FAIL", "lost", loss={"mse": 0.1, "entropy": 0.2}.get(component.ranges, 0.3))

    bench = Bench(judged)
    changed, record = bench.climb(planned('rungs = ["calibration"]'), monkeypatch)
    assert [trial.loss for trial in record.trials] == [0.3, 0.1, 0.3, 0.2]
    assert record.chosen == 1
    assert chosen(changed).component.ranges == "mse"
    assert bench.component.ranges == "mse"  # its files were carried out again, the last tried being others


def test_what_cannot_be_written_is_told_and_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(fails, refuses=lambda component: component.ranges == "mse")
    changed, record = bench.climb(planned('rungs = ["calibration"]'), monkeypatch)
    refused = record.trials[1]
    assert (refused.outcome, refused.use) == ("NOT TRIED", "")
    assert "conv1: cannot be written" in refused.reason
    assert chosen(changed).component == chosen(planned()).component


def test_training_comes_last_with_the_passes_own_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(component: Any) -> Judged:
        return Judged("PASS", "", loss=0.0) if type(component).__name__ == "Qat" else fails(component)

    repairs = 'rungs = ["calibration", "qat"]\nqat = { epochs = 2 }'
    changed, record = Bench(judged).climb(planned(repairs), monkeypatch)
    stage = chosen(changed)
    assert (stage.use, stage.component.epochs, stage.component.granularity) == ("qat", 2, "per_tensor")
    assert record.trials[record.chosen].rung == "qat"


@pytest.mark.parametrize(
    ("granularity", "tried"),
    [
        ("per_tensor", [["equalize", "bias"], ["equalize", "adaround", "bias"]]),
        ("per_channel", [["bias"], ["equalize", "bias"], ["adaround", "bias"]]),
    ],
)
def test_corrections_equalize_first_only_where_channels_share_a_scale(
    granularity: str, tried: list[list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned('rungs = ["equalize_bias", "adaround"]', RECIPE.replace("per_tensor", granularity))
    _, record = Bench(fails).climb(plan, monkeypatch)
    assert [trial.parameters["corrections"] for trial in record.trials[1:]] == tried


def test_no_trial_begins_after_max_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    _, record = Bench(fails).climb(planned("max_seconds = 1e-9"), monkeypatch)
    assert [trial.outcome for trial in record.trials] == ["FAIL", "NOT TRIED"]
    assert "max_seconds" in record.trials[1].reason


def test_resume_takes_up_what_was_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(lambda c: Judged("PASS" if c.ranges == "mse" else "FAIL", ""))
    changed, record = bench.climb(planned(), monkeypatch)
    bench.carried.clear()
    run: Any = SimpleNamespace(manifest=SimpleNamespace(repairs={"int8": record}))
    again = repair.Work(run, None, Path(), None, bench.stage, bench.artifact, Path, "seen", lambda _: None)  # type: ignore[arg-type]
    assert chosen(repair.resumed(planned(), again)) == chosen(changed)
    other = repair.Work(run, None, Path(), None, bench.stage, bench.artifact, Path, "other", lambda _: None)  # type: ignore[arg-type]
    assert chosen(repair.resumed(planned(), other)) == chosen(planned())


@pytest.mark.parametrize(
    ("before", "after", "problem"),
    [
        ("selection = 600\n", "", "set data.splits.selection"),
        ("max_accuracy_drop = 0.05", "max_size_kib = 9", "set budget.max_accuracy_drop"),
        ('"int8"\ngranularity = "per_tensor"', '"float16"', "no variant has a static quantize pass"),
    ],
)
def test_plan_names_what_repair_lacks(before: str, after: str, problem: str) -> None:
    found = planned(text=RECIPE.replace(before, after)).problems
    assert any(problem in each for each in found), found


def test_parameters_of_the_qat_rung_are_checked_with_the_recipe() -> None:
    with pytest.raises(InputError, match="epochs"):
        planned("qat = { epochs = 0 }")


# ---------------------------------------------------------------- a whole run


@pytest.fixture(scope="module")
def outlying(digits_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The digits CNN with one channel 2,000 times the others: the same function, which int8 per tensor cannot hold."""
    import keras

    model = keras.models.load_model(digits_model, compile=False)
    norm, conv = model.get_layer("bn1"), model.get_layer("conv2")
    gamma, beta, *statistics = norm.get_weights()
    gamma[0], beta[0] = gamma[0] * 2000, beta[0] * 2000
    norm.set_weights([gamma, beta, *statistics])
    kernel, bias = conv.get_weights()
    kernel[:, :, 0] /= 2000
    conv.set_weights([kernel, bias])
    path = tmp_path_factory.mktemp("outlying") / "outlying.keras"
    model.save(path)
    return path


def carried_out(model: Path, repairs: str, folder: Path) -> Any:
    recipe = folder / "repair.toml"
    recipe.write_text(RECIPE + repairs)
    return pipeline.run(recipe, model=model, out=folder / "run")


@pytest.fixture(scope="module")
def repaired(outlying: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, list[str]]:
    """A run that is repaired, and what was read of the splits, in order, in the run's own process."""
    from toolkit.datasets.stream import Split
    from toolkit.judging import Judge

    read: list[str] = []
    batches, judge = Split.batches, Judge.judge

    def counted(self: Any, size: int) -> Any:
        read.append(self.name)
        return batches(self, size)

    def judged(self: Any, *given: Any) -> None:
        read.append("the verdict")
        judge(self, *given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Split, "batches", counted)
        patch.setattr(Judge, "judge", judged)
        folder = tmp_path_factory.mktemp("repaired")
        return carried_out(outlying, 'rungs = ["calibration", "mixed"]', folder), read


@pytest.mark.slow
def test_run_is_repaired_at_the_rung_that_holds_the_outlier(repaired: tuple[Any, list[str]]) -> None:
    record: runs.RepairRecord = repaired[0].manifest.repairs["int8"]
    assert record.trials[0].outcome == "FAIL"
    assert record.trials[record.chosen].rung == "mixed"
    narrow = next(trial for trial in record.trials if trial.change.startswith("int16x8"))
    assert (narrow.outcome, narrow.use) == ("FAIL", "quantize")  # its weights still share a scale
    assert record.trials[record.chosen].outcome == "PASS"
    assert repaired[0].manifest.outcome == "PASS"
    assert "what stays: float32:" in (repaired[0].folder / "report.html").read_text()


@pytest.mark.slow
def test_equalization_holds_the_outlier_before_any_layer_is_left_in_float(outlying: Path, tmp_path: Path) -> None:
    """Its channel is the others' by a factor that the next layer undoes: what equalization finds."""
    result = carried_out(outlying, 'rungs = ["equalize_bias", "mixed"]', tmp_path)
    record = result.manifest.repairs["int8"]
    assert [trial.outcome for trial in record.trials] == ["FAIL", "PASS"]
    assert record.trials[record.chosen].rung == "equalize_bias"
    kept = next(stage for stage in result.manifest.stages if stage.name == "int8.01-quantize")
    assert list(kept.parameters["corrections"]) == ["equalize", "bias"]


@pytest.mark.slow
def test_ladder_reads_selection_and_the_test_split_is_read_for_the_verdict_alone(
    repaired: tuple[Any, list[str]],
) -> None:
    before = repaired[1][: repaired[1].index("the verdict")]
    assert "selection" in before
    assert "test" not in before
    assert "test" in repaired[1]


@pytest.mark.slow
def test_run_that_nothing_helps_fails_with_all_rungs_told_and_is_diagnosed(outlying: Path, tmp_path: Path) -> None:
    result = carried_out(outlying, 'rungs = ["calibration"]', tmp_path)
    record = result.manifest.repairs["int8"]
    assert [trial.outcome for trial in record.trials] == ["FAIL"] * 4
    assert result.manifest.outcome == "FAIL"
    told = result.manifest.diagnoses["int8.tflite"].diagnosis
    assert told.culprit in ("conv1", "bn1", "relu1", "conv2", "conv2_relu")
    assert told.advice in (result.folder / "report.html").read_text().replace("&quot;", '"').replace("&#x27;", "'")
