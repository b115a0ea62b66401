"""The shipped recipes: each plans for its devices, and promises nothing of a device that nothing was measured on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toolkit.devices import load_device, shipped
from toolkit.plan import make_plan
from toolkit.recipe_reader import load_recipe

NAMES = sorted(shipped("recipes"))
HERE = "this-machine"
MAKING = ("train-small", "transfer-then-compress")  # recipes that make their model


def plan(name: str, folder: Path, **more: Any) -> Any:
    """The plan of a shipped recipe for a Keras model and scikit-learn's digits."""
    model = folder / "m.keras"
    model.touch()
    if name == "transfer-then-compress":
        more["overrides"] = [f"train.backbone={model}"]
    return make_plan(load_recipe(name, model=None if name in MAKING else model, data="digits", **more))


@pytest.mark.parametrize("name", NAMES)
def test_plans_for_its_devices_with_every_file_on_each_judged(name: str, tmp_path: Path) -> None:
    made = plan(name, tmp_path)
    assert not made.problems
    files = [stage for stage in made.stages if stage.kind == "export" and stage.variant != "original"]
    wanted = {(stage.name, target.profile.name) for stage in files for target in made.recipe.targets}
    assert {(check.artifact, check.device.name) for check in made.checks} >= wanted


# family of devices, the recipes for them, and what some devices of it refuse
FAMILIES: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "phone": (("mobile-int8", "mobile-float16", "mobile-int8-qat"), set()),
    "microcontroller": (("mcu-int8",), set()),
    # before Xavier there are no int8 kernels (NVIDIA's support matrix)
    "jetson": (("jetson-int8",), {"jetson-nano", "jetson-tx2"}),
    "gpu": (("gpu-float16",), set()),
}
PAIRS = [
    (recipe, device)
    for device in sorted(shipped("devices"))
    for recipe in FAMILIES.get(load_device(device).family, ((), set()))[0]
]
PAIRS += [("gpu-float16", device) for device in ("jetson-nano", "jetson-tx2")]  # as jetson-int8.toml says
PAIRS += [("raspberry-pi-int8", device) for device in sorted(shipped("devices")) if device.startswith("raspberry-pi")]


@pytest.mark.parametrize(("name", "device"), PAIRS, ids="-".join)
def test_plans_for_every_device_of_its_family_that_has_the_kernels(name: str, device: str, tmp_path: Path) -> None:
    own, refusing = FAMILIES.get(load_device(device).family, ((), set()))
    refuses = name in own and device in refusing
    problems = plan(name, tmp_path, devices=[device]).problems
    assert bool(problems) == refuses
    assert all(device in problem for problem in problems)


@pytest.mark.parametrize("name", NAMES)
def test_a_device_beyond_reach_has_a_latency_limit_and_the_plan_says_it_stays_open(name: str, tmp_path: Path) -> None:
    """Of an emulated microcontroller latency is estimated, of others nothing is known without --ssh or --adb."""
    made = plan(name, tmp_path)
    for target in made.recipe.targets:
        profile = target.profile
        if profile.name != HERE:
            assert target.budget.max_latency_p50_ms
            words = ("INCONCLUSIVE", "estimated, not measured")
            notes = [note for note in made.notes if note.startswith(profile.name)]
            assert any(word in note for note in notes for word in words)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mobile-float16", "mcu-int8"])
def test_run_judges_answers_and_size_and_leaves_the_latency_of_its_device_open(
    name: str, digits_model: Path, tmp_path: Path
) -> None:
    """No phone and no board is here: whatever stands in the manifest of their latency was not measured."""
    from toolkit import pipeline

    if name == "mcu-int8":
        pytest.importorskip("tflite_micro")
    overrides = ["data.preprocess={ scale = 0.0625 }", "budget.max_accuracy_drop=0.2"]
    manifest = pipeline.run(name, model=digits_model, data="digits", overrides=overrides, out=tmp_path / "run").manifest
    device = load_recipe(name).targets[0].profile.name
    outcomes = {verdict.gate: verdict for verdict in manifest.verdicts if verdict.device == device}
    assert outcomes.pop("max_latency_p50_ms").outcome == "INCONCLUSIVE"
    assert outcomes and {verdict.outcome for verdict in outcomes.values()} == {"PASS"}
    assert manifest.outcome == "INCONCLUSIVE"
    sources = {row.source for row in manifest.measurements if row.device == device and row.name.startswith("latency")}
    assert "measured" not in sources
    stand_in = [row for row in manifest.measurements if row.device == HERE and row.name == "latency_p50_ms"]
    assert bool(stand_in) == (name != "mcu-int8")
    assert not any("cores" in row.how for row in stand_in)  # a phone's eighth core is none of this machine's
    assert "not measured" in (tmp_path / "run" / "report.html").read_text()
