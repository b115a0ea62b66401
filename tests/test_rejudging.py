"""A run made by hand, judged again by other limits: nothing in it is run, and no framework is imported."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.run_by_hand import CLASSES, FILE, HERE, IMAGES, make_run
from toolkit import runs
from toolkit.budget_file import read_limits
from toolkit.checks import gate
from toolkit.checks.accuracy import Predictions, measure_accuracy
from toolkit.cli import cli
from toolkit.core import Budget
from toolkit.errors import InputError
from toolkit.rejudging import rejudge
from toolkit.split_records import LABELS, Labelled


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def limits(folder: Path, text: str) -> Path:
    path = folder.parent / "limits.toml"
    path.write_text(f"schema = 1\n{text}")
    return path


def outcomes(made: Any) -> dict[tuple[str, str], str]:
    return {(each.device, each.gate): each.outcome for each in made.verdicts}


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_run_is_judged_by_its_own_limits_where_none_are_given(run: Path) -> None:
    made = rejudge(run)
    assert outcomes(made) == {(HERE, "max_accuracy_drop"): "PASS"}
    assert made.outcome == "PASS"


def test_every_gate_is_judged_on_what_is_kept(run: Path) -> None:
    text = """[budget]
    max_accuracy_drop = 0.001
    max_class_drop = 0.1
    min_agreement = 0.98
    max_latency_p50_ms = 5
    max_latency_p90_ms = 4.5
    max_size_kib = 39
    max_macs = 1000"""
    before = contents(run)
    made = rejudge(run, limits(run, text))
    assert outcomes(made) == {
        (HERE, "max_accuracy_drop"): "INCONCLUSIVE",  # 0.56 points, at 99% of 0.0 and more
        (HERE, "max_class_drop"): "PASS",
        (HERE, "min_agreement"): "PASS",
        (HERE, "max_latency_p50_ms"): "PASS",  # 4.7 ms at most: eight hold a typical one at 99.2%
        (HERE, "max_latency_p90_ms"): "INCONCLUSIVE",
        (HERE, "max_size_kib"): "FAIL",
        (HERE, "max_macs"): "INCONCLUSIVE",
    }
    assert made.outcome == "FAIL"
    assert contents(run) == before  # the run is as it was


def test_worst_class_is_judged_as_the_run_would_have(run: Path) -> None:
    budget = Budget(max_class_drop=0.05)
    labels = np.arange(IMAGES) % 3
    data = Labelled("test", "sha256:t", CLASSES, labels, "classes")
    with (
        np.load(run / "samples" / "original.answers.npz") as one,
        np.load(run / "samples" / f"{FILE}@{HERE}.answers.npz") as two,
    ):
        original, own = Predictions("original", one["classes"], "softmax"), Predictions(FILE, two["classes"], "softmax")
    accuracy = measure_accuracy(own, data, original=original)
    facts = replace(gate.gather(accuracy.measurements, FILE, ""), evidence=accuracy.evidence)
    (expected,) = gate.judge(FILE, "", budget=budget, facts=facts)
    (verdict,) = rejudge(run, limits(run, "[budget]\nmax_class_drop = 0.05")).verdicts
    assert (verdict.outcome, verdict.value, verdict.reason) == (expected.outcome, expected.value, expected.reason)
    assert "dog" in verdict.reason
    assert verdict.interval == expected.interval


def test_targets_limits_stand_over_the_default_on_their_device_alone(run: Path) -> None:
    text = f"""[budget]
    max_size_kib = 39
    max_accuracy_drop = 0.02
    [[targets]]
    device = "{HERE}"
    budget = {{ max_size_kib = 41 }}"""
    made = rejudge(run, limits(run, text))
    assert outcomes(made) == {(HERE, "max_accuracy_drop"): "PASS", (HERE, "max_size_kib"): "PASS"}
    assert [each.limit for each in made.verdicts if each.gate == "max_size_kib"] == [41]


def test_device_that_the_run_never_met_is_inconclusive_on_what_was_not_measured(run: Path) -> None:
    text = """[budget]
    max_size_kib = 41
    [[targets]]
    device = "raspberry-pi-4"
    budget = { max_latency_p50_ms = 1000 }"""
    made = rejudge(run, limits(run, text))
    assert outcomes(made) == {
        (HERE, "max_size_kib"): "PASS",
        ("raspberry-pi-4", "max_size_kib"): "PASS",  # of the file, wherever it is
        ("raspberry-pi-4", "max_latency_p50_ms"): "INCONCLUSIVE",
    }


@pytest.mark.parametrize(
    ("gone", "gate_name", "reason"),
    [
        (LABELS, "max_class_drop", "samples/ holds no labels of the test images"),
        (f"{FILE}@{HERE}.answers.npz", "max_class_drop", f"samples/{FILE}@{HERE}.answers.npz is not there"),
        (f"{FILE}@{HERE}.latency.npz", "max_latency_p50_ms", f"samples/{FILE}@{HERE}.latency.npz is not there"),
    ],
)
def test_what_is_not_there_is_inconclusive_and_says_so(run: Path, gone: str, gate_name: str, reason: str) -> None:
    (run / "samples" / gone).unlink()
    (verdict,) = rejudge(run, limits(run, f"[budget]\n{gate_name} = 0.9")).verdicts
    assert verdict.outcome == "INCONCLUSIVE"
    assert reason in verdict.reason


@pytest.mark.parametrize("left", [0, 100, 200])
@pytest.mark.parametrize("name", [LABELS, f"{FILE}@{HERE}.answers.npz"])
def test_damaged_samples_are_inconclusive(run: Path, name: str, left: int) -> None:
    path = run / "samples" / name
    path.write_bytes(path.read_bytes()[:left])
    (verdict,) = rejudge(run, limits(run, "[budget]\nmax_class_drop = 0.9")).verdicts
    assert verdict.outcome == "INCONCLUSIVE"
    assert verdict.reason.startswith("measured without its counts by class: ")


def test_answers_that_do_not_fit_the_labels_are_inconclusive(run: Path) -> None:
    path = run / "samples" / f"{FILE}@{HERE}.answers.npz"
    with np.load(path) as stored:
        kept = {name: stored[name][:-1] for name in stored.files}
    np.savez(path, **kept)
    (verdict,) = rejudge(run, limits(run, "[budget]\nmax_class_drop = 0.9")).verdicts
    assert verdict.outcome == "INCONCLUSIVE"
    assert f"{IMAGES - 1} outputs for {IMAGES} labels" in verdict.reason


def test_labels_of_other_images_are_not_taken(run: Path) -> None:
    np.savez(run / "samples" / LABELS, labels=np.zeros(IMAGES, int), task="classes", fingerprint="sha256:other")
    (verdict,) = rejudge(run, limits(run, "[budget]\nmax_class_drop = 0.9")).verdicts
    assert "are of other images" in verdict.reason


@pytest.mark.parametrize(
    ("text", "line", "problem"),
    [
        ("[budget]\nmax_sise_kib = 3", 3, "did you mean 'max_size_kib'"),
        ("[bugdet]\nmax_size_kib = 3", 2, "did you mean 'budget'?"),
        ("[budget]\nmax_size_kib = -3", 3, "must be more than 0"),
        ('[[targets]]\ndevice = "raspbery-pi-4"\nbudget = { max_size_kib = 3 }', 3, "did you mean 'raspberry-pi-4'"),
        ("[budget]\nconfidence = 0.9", 2, "sets no limit"),
        ("[[targets]]\nbudget = { max_size_kib = 3 }", 2, "is missing"),
    ],
)
def test_mistakes_in_the_file_are_named_with_their_line(run: Path, text: str, line: int, problem: str) -> None:
    with pytest.raises(InputError) as caught:
        rejudge(run, limits(run, text))
    assert f"limits.toml:{line}: " in str(caught.value)
    assert problem in str(caught.value)


def test_recipe_is_taken_for_its_limits(run: Path) -> None:
    text = """export = ["tflite"]
    [model]
    source = "m.keras"
    [data]
    use = "digits"
    splits = { test = 100 }
    [budget]
    max_size_kib = 39"""
    made = rejudge(run, limits(run, text))
    assert outcomes(made) == {(HERE, "max_size_kib"): "FAIL"}


def test_limits_of_a_variant_that_the_run_has_not_are_told(run: Path) -> None:
    text = f"""[budget]
    max_size_kib = 41
    [[targets]]
    device = "{HERE}"
    variants = ["tablet"]
    budget = {{ max_size_kib = 39 }}"""
    made = rejudge(run, limits(run, text))
    assert made.outcome == "PASS"
    assert made.notes == (f"limits for variant 'tablet' on {HERE} judge nothing here: the run has no such variant",)


def test_plan_and_gate_read_the_same_limits_of_each_device(tmp_path: Path) -> None:
    """A target's own limits over those of [budget], which hold for what it does not set."""
    from toolkit.plan import make_plan
    from toolkit.recipe_reader import load_recipe

    path = tmp_path / "recipe.toml"
    path.write_text(f"""schema = 1
    [model]
    source = "m.keras"
    [data]
    use = "digits"
    splits = {{ test = 100 }}
    [budget]
    max_accuracy_drop = 0.01
    max_size_kib = 100
    [[variants]]
    name = "phone"
    export = ["tflite"]
    [[variants]]
    name = "server"
    export = ["onnx"]
    [[targets]]
    device = "{HERE}"
    budget = {{ max_latency_p50_ms = 3 }}
    [[targets]]
    device = "raspberry-pi-4"
    variants = ["phone"]
    budget = {{ max_latency_p50_ms = 30, max_size_kib = 50 }}""")
    read = read_limits(path, ())
    checks = [check for check in make_plan(load_recipe(path)).checks if not check.artifact.startswith("original")]
    assert {(check.artifact, check.device.name) for check in checks} == {
        ("phone.tflite", HERE),
        ("server.onnx", HERE),
        ("phone.tflite", "raspberry-pi-4"),
    }
    for check in checks:
        variant, device = check.artifact.split(".")[0], check.device.name
        budget = read.of(variant, device)
        assert budget == check.budget
        assert (budget.max_accuracy_drop, budget.max_latency_p50_ms) == (0.01, 3 if device == HERE else 30)
        assert budget.max_size_kib == (100 if device == HERE else 50)
    assert read.of("server", "raspberry-pi-4") == read.default


@pytest.mark.parametrize(
    ("text", "code"), [("max_size_kib = 41", 0), ("max_size_kib = 39", 1), ("max_macs = 9", 4), ("max_size = 1", 2)]
)
def test_exit_code_is_that_of_the_worst_verdict(run: Path, text: str, code: int) -> None:
    result = CliRunner().invoke(cli, ["gate", str(run), "--budget", str(limits(run, f"[budget]\n{text}"))])
    assert result.exit_code == code


def test_table_says_what_the_run_itself_said(run: Path) -> None:
    manifest = runs.read(run)
    (verdict,) = rejudge(run).verdicts
    runs.Run(run, replace(manifest, verdicts=(replace(verdict, outcome="FAIL"),))).update()
    result = CliRunner().invoke(cli, ["gate", str(run)])
    assert "PASS (was FAIL)" in result.output
    found = json.loads(CliRunner().invoke(cli, ["gate", str(run), "--json"]).output)
    assert [(each["outcome"], each["before"]) for each in found["verdicts"]] == [("PASS", "FAIL")]


def test_written_verdicts_are_in_the_manifest_and_the_report_and_say_whose_they_are(run: Path) -> None:
    file = limits(run, "[budget]\nmax_size_kib = 39")
    assert CliRunner().invoke(cli, ["gate", str(run), "--budget", str(file), "--write"]).exit_code == 1
    manifest = runs.read(run)
    assert manifest.outcome == "FAIL"
    assert [(each.gate, each.outcome) for each in manifest.verdicts] == [("max_size_kib", "FAIL")]
    assert any(warning.startswith("judged again at ") and str(file) in warning for warning in manifest.warnings)
    assert "over the budget of 39" in (run / "report.html").read_text()


def test_written_verdicts_by_the_recipe_do_not_say_that_it_has_other_limits(run: Path) -> None:
    rejudge(run, write=True)
    (told,) = (each for each in runs.read(run).warnings if each.startswith("judged again at "))
    assert told.endswith("by the limits of its own recipe")


def test_run_without_files_is_refused(run: Path) -> None:
    runs.Run(run, replace(runs.read(run), artifacts=())).update()
    with pytest.raises(InputError, match="delivered no file"):
        rejudge(run)


def test_nothing_heavy_is_imported(run: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from toolkit.rejudging import rejudge
rejudge(Path({str(run)!r}), Path({str(limits(run, "[budget]" + chr(10) + "max_class_drop = 0.1"))!r}))
print([name for name in ("tensorflow", "keras", "onnx", "onnxruntime", "ai_edge_litert") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_real_run_judged_again_by_its_own_limits_says_the_same(finished: Any, tmp_path: Path) -> None:
    made = rejudge(finished.folder)
    assert made.verdicts == finished.manifest.verdicts
    copy = tmp_path / "limits.toml"
    copy.write_text("schema = 1\n[budget]\nmax_class_drop = 0.9\nmax_latency_p50_ms = 1000\n")
    assert {each.outcome for each in rejudge(finished.folder, copy).verdicts} == {"PASS"}
