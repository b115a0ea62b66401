"""The shipped profiles of NVIDIA's devices: every fact has a source, and the figures agree with each other."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from toolkit.devices import DeviceProfile, load_device, shipped
from toolkit.documents import Document
from toolkit.plan import make_plan
from toolkit.recipe_reader import parse_recipe

NAMES = sorted(shipped("devices"))
NVIDIA = [name for name in NAMES if load_device(name).compute_capability]
JETSON = [name for name in NVIDIA if name.startswith("jetson-")]
# Of one streaming multiprocessor, by compute capability. Cores: NVIDIA's CUDA C++ Programming Guide, table of
# arithmetic. Operations of a clock, two for a multiply-add of int8: NVIDIA's architecture whitepapers.
CORES = {"7.2": 64, "7.5": 64, "8.0": 64, "8.6": 128, "8.7": 128, "8.9": 128, "9.0": 128}
OPERATIONS = {"7.2": 2048, "7.5": 2048, "8.0": 4096, "8.6": 2048, "8.7": 4096, "8.9": 2048, "9.0": 8192}

VERSIONS = ("JetPack", "first JetPack", "L4T", "CUDA")  # not figures of the hardware


def facts(profile: DeviceProfile) -> dict[str, Any]:
    return {fact.name: fact.value for fact in profile.facts}


@pytest.mark.parametrize("name", NAMES)
def test_every_fact_has_a_source_and_a_name_of_its_own(name: str) -> None:
    """The file itself, so that what the schema fills in does not count."""
    data = tomllib.loads(shipped("devices")[name].read_text())
    facts = data.get("facts", [])
    assert all(fact["source"].strip() for fact in facts)
    assert len({fact["name"] for fact in facts}) == len(facts)
    assert all(known["source"].strip() for runtime in data["runtimes"] for known in runtime.get("kernels", []))


@pytest.mark.parametrize("name", NVIDIA)
def test_what_is_not_a_fact_says_its_source_in_the_line_above(name: str) -> None:
    lines = shipped("devices")[name].read_text().splitlines()
    for key in ("compute_capability", "dla_cores"):
        for index, line in enumerate(lines):
            assert not line.startswith(key) or "Source: " in lines[index - 1]


LAW = [name for name in NVIDIA if {"CUDA cores", "GPU clock", "int8 dense"} <= facts(load_device(name)).keys()]


def test_law_is_asked_of_nearly_all_devices_with_int8() -> None:
    """The H100 for PCIe has no clock in its profile, Thor no int8 figure."""
    able = {name for name in NVIDIA if "int8" in load_device(name).runtimes[0].schemes}
    assert able - set(LAW) == {"h100", "jetson-thor"}


@pytest.mark.parametrize("name", LAW)
def test_dense_int8_rate_is_that_of_the_cores_at_their_clock(name: str) -> None:
    """Xavier's rates were worked out this way; those of the others were published."""
    profile = load_device(name)
    known, capability = facts(profile), profile.compute_capability
    multiprocessors = known["CUDA cores"] / CORES[capability]
    rate = multiprocessors * OPERATIONS[capability] * known["GPU clock"] * 1e6 / 1e12
    assert known["int8 dense"] == pytest.approx(rate, rel=0.05)
    assert known["float16 dense"] == pytest.approx(rate / 2, rel=0.05)


@pytest.mark.parametrize("name", [name for name in NVIDIA if "int8 sparse" in facts(load_device(name))])
def test_sparse_rate_is_twice_the_dense_one(name: str) -> None:
    known = facts(load_device(name))
    assert known["int8 sparse"] == pytest.approx(2 * known["int8 dense"], rel=0.02)


@pytest.mark.parametrize("name", NVIDIA)
def test_nvidia_devices_take_images_channels_first_and_symmetric_int8(name: str) -> None:
    profile = load_device(name)
    runtime = profile.runtimes[0]
    assert (runtime.use, runtime.layout) == ("tensorrt", "NCHW")
    assert runtime.delegates == (("gpu", "dla") if profile.dla_cores else ("gpu",))
    assert ("int8" in runtime.schemes) == (runtime.needs("symmetric_only") is not None)


@pytest.mark.parametrize(
    ("name", "capability", "dla", "tensorrt"),
    [
        ("jetson-nano", "5.3", 0, "8.2.1"),
        ("jetson-tx2", "6.2", 0, "8.2.1"),
        ("jetson-xavier-nx", "7.2", 2, "8.5.2"),
        ("jetson-agx-xavier", "7.2", 2, "8.5.2"),
        ("jetson-orin-nano-8", "8.7", 0, "10.3"),
        ("jetson-orin-nx-8", "8.7", 1, "10.3"),
        ("jetson-agx-orin-64", "8.7", 2, "10.3"),
        ("jetson-thor", "11.0", 0, "10.13"),
        ("h200", "9.0", 0, ""),
    ],
)
def test_devices_are_told_apart(name: str, capability: str, dla: int, tensorrt: str) -> None:
    profile = load_device(name)
    assert (profile.compute_capability, profile.dla_cores) == (capability, dla)
    assert profile.runtimes[0].version == tensorrt


def test_devices_without_int8_kernels_run_none() -> None:
    able = {name: "int8" in load_device(name).runtimes[0].schemes for name in JETSON}
    assert {name for name, int8 in able.items() if not int8} == {"jetson-nano", "jetson-tx2"}


def test_table_in_the_docs_says_what_the_profiles_say() -> None:
    text = (Path(__file__).resolve().parents[1] / "docs" / "devices.md").read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")]
    table = {row[0].strip("`"): row[1:] for row in rows if len(row) == 10}
    assert sorted(table) == NVIDIA
    for name, row in table.items():
        profile = load_device(name)
        known, runtime = facts(profile), profile.runtimes[0]
        columns = ("memory", "memory bandwidth", "int8 dense", "float16 dense")
        figures = [str(known.get(key, "-")) for key in columns]
        read = [
            fact.name
            for fact in profile.facts
            if not fact.source.startswith("unverified") and fact.name not in VERSIONS
        ]
        about = [profile.compute_capability, runtime.version or "installed", ", ".join(runtime.schemes)]
        assert row == [*about, *figures, str(profile.dla_cores or "-"), ", ".join(read) or "none"]


# ---------------------------------------------------------------- plans

RECIPE = """
schema = 1
[data]
use = "digits"
[data.splits]
calibration = 100
test = 400
[[variants]]
name = "int8"
export = ["onnx"]
[[variants.passes]]
use = "quantize"
scheme = "int8"
FLAVOUR
[[targets]]
device = "DEVICE"
[targets.budget]
max_latency_p50_ms = 5
"""


def plan(device: str, flavour: str = "", export: str = '"onnx"') -> Any:
    text = RECIPE.replace("FLAVOUR", flavour).replace("DEVICE", device).replace('"onnx"', export)
    return make_plan(parse_recipe(Document("r.toml", tomllib.loads(text)), Path.cwd()))


def test_recipe_for_an_orin_is_planned_channels_first_and_cannot_be_measured() -> None:
    made = plan("jetson-orin-nano-8", 'flavour = "symmetric"')
    assert not made.problems
    assert not made.missing
    assert made.stage("int8.onnx").component.layout == "NCHW"
    (check,) = [check for check in made.checks if check.artifact == "int8.onnx"]
    assert (check.device.name, check.runtime) == ("jetson-orin-nano-8", "")
    assert "cannot be measured from here" in check.note


@pytest.mark.parametrize(
    ("device", "noted"), [("jetson-xavier-nx", True), ("jetson-orin-nano-8", False), ("t4", False)]
)
def test_file_newer_than_the_devices_tensorrt_is_noted(device: str, noted: bool) -> None:
    """Operator set 18 is the ONNX exporter's own; TensorRT 8.5 reads up to 17."""
    words = f"{device}: TensorRT 8.5.2 is known to read operator sets up to 17, this file has 18: set opset = 17"
    made = plan(device, 'flavour = "symmetric"')
    assert (f"variant int8: {words}" in made.notes) == noted
    older = plan(device, 'flavour = "symmetric"', export='{ use = "onnx", opset = 17 }')
    assert not [note for note in older.notes if "operator sets" in note]


def test_asymmetric_int8_for_tensorrt_is_refused_before_any_work() -> None:
    (problem,) = plan("jetson-orin-nano-8").problems
    assert "variant int8: jetson-orin-nano-8: tensorrt reads symmetric int8 activations" in problem
    assert problem.endswith('Fix: set flavour = "symmetric" in its quantize or qat pass')


def test_int8_for_a_jetson_without_int8_kernels_is_refused() -> None:
    problems = plan("jetson-nano", 'flavour = "symmetric"').problems
    assert any("jetson-nano: cannot run int8 onnx files" in problem for problem in problems)


@pytest.mark.slow
def test_run_for_an_orin_judges_what_it_can_and_leaves_its_latency_open(digits_model: Path, tmp_path: Path) -> None:
    """Answers are compared on this machine; nothing was timed on the module, and nothing says so."""
    from toolkit import pipeline

    recipe = tmp_path / "orin.toml"
    text = RECIPE.replace("FLAVOUR", 'flavour = "symmetric"').replace("DEVICE", "jetson-orin-nano-8")
    recipe.write_text(text + "max_accuracy_drop = 0.2\n[data.preprocess]\nscale = 0.0625\n")
    manifest = pipeline.run(recipe, model=digits_model, out=tmp_path / "run").manifest
    assert (tmp_path / "run" / "artifacts" / "int8.onnx").is_file()
    outcomes = {(verdict.device, verdict.gate): verdict.outcome for verdict in manifest.verdicts}
    assert outcomes == {
        ("jetson-orin-nano-8", "max_latency_p50_ms"): "INCONCLUSIVE",
        ("jetson-orin-nano-8", "max_accuracy_drop"): "PASS",
    }
    assert manifest.outcome == "INCONCLUSIVE"
    assert not [each for each in manifest.measurements if each.device == "jetson-orin-nano-8"]
    (latency,) = [verdict for verdict in manifest.verdicts if verdict.gate == "max_latency_p50_ms"]
    assert "not measured" in latency.reason
