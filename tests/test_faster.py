"""Files explained by what their runtime really says: on this machine, on a device that is not there, and in a run."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from tests.checks.speed_nets import Lite, Onnx
from tests.delivered import DEVICE, finished_run
from toolkit import faster, runs
from toolkit.budget import Budget
from toolkit.checks import shares
from toolkit.checks.shares import Profile
from toolkit.cli import cli
from toolkit.core import Artifact, Interval, Measurement, MeasureSpec, Signature
from toolkit.devices import load_device, open_session
from toolkit.errors import StageError
from toolkit.inspection import read_artifact
from toolkit.plan import Check

HERE, PHONE = load_device("this-machine"), load_device("raspberry-pi-4")


def dynamic(path: Path) -> Path:
    """Float values and int8 weights: XNNPACK takes the convolutions, not what lies between them."""
    net = Lite("float32", channels=16).conv("a", "float32").depthwise("b", "float32", weights="int8")
    return net.conv("c", "float32").write(path)


def test_litert_is_asked_what_xnnpack_takes(tmp_path: Path) -> None:
    path = Lite().conv("a").op("CUMSUM", "odd", "int8").conv("c").write(tmp_path / "m.tflite")
    with faster.Asking() as asking:
        artifact = read_artifact(dynamic(tmp_path / "d.tflite"))
        pieces, who = asking.pieces(artifact) or ((), "")
        assert pieces == ((0,), (2,)) and who.startswith("LiteRT ") and who.endswith("on this machine")
        assert asking.pieces(read_artifact(path)) is None  # LiteRT refuses it: nothing is known, nothing is said


def test_profile_on_this_machine_names_what_takes_the_time(tmp_path: Path) -> None:
    artifact = read_artifact(dynamic(tmp_path / "d.tflite"))
    session = open_session(HERE)
    try:
        profile = shares.profiled(artifact, session, MeasureSpec(), HERE, runtime=("litert", "xnnpack"))
    finally:
        session.close()
    assert profile.pieces == ((0,), (2,)) and profile.sha256 == artifact.sha256
    with faster.Asking() as asking:
        found = faster.explained(artifact, HERE, ("litert", "xnnpack", 1), profile=profile, asking=asking)
    assert found is not None
    (finding,) = [each for each in found.findings if each.rule == "delegate"]
    assert finding.layers == ("b",) and "LiteRT on this-machine" in finding.evidence
    if profile.layers:  # this LiteRT has a profiler
        depthwise = next(layer for layer in found.layers if layer.name == "b")
        assert depthwise.by == "LiteRT" and finding.share == depthwise.measured


def test_device_that_is_not_there_is_explained_by_estimate_and_by_asking_here(tmp_path: Path) -> None:
    found = faster.inspected(dynamic(tmp_path / "d.tflite"), "raspberry-pi-4")
    assert found is not None and [each.rule for each in found.findings] == ["delegate"]
    assert found.how == "no layer was timed on raspberry-pi-4" and "dynamic" in found.estimated_by
    floats = Lite("float32").conv("a", "float32").conv("b", "float32").write(tmp_path / "f.tflite")
    clean = faster.inspected(floats, "raspberry-pi-4")
    assert clean is not None and clean.findings == ()
    assert sum(layer.estimated or 0.0 for layer in clean.layers) == pytest.approx(1.0)
    assert {layer.limit for layer in clean.layers} <= {"compute", "memory"} and "Cortex-A72" in clean.estimated_by
    assert "nothing stands out" in "\n".join(faster.lines([clean]))


def test_device_without_a_runtime_for_the_file_is_passed_over(tmp_path: Path) -> None:
    assert faster.inspected(tmp_path / "model.keras", "raspberry-pi-4") is None
    path = Onnx().conv("a", integer=False).write(tmp_path / "m.onnx")
    assert faster.inspected(path, "cortex-m4") is None


# ---------------------------------------------------------------- beside the float file


def timed(subject: str, p5: float, **more: Any) -> Measurement:
    span = Interval(p5, 1.5 * p5, 0.0, "range")
    return replace(Measurement(subject, "latency_p5_ms", p5, "ms", "measured", HERE.name, span), **more)


def file(name: str, scheme: Any) -> Artifact:
    return Artifact(name, Path(name), name.partition(".")[2], scheme, 1, "", Signature((), ()))


def gains(*known: Measurement, own: Artifact, others: tuple[Artifact, ...]) -> list[str]:
    return [finding.text for finding in faster.no_gain(known, own, HERE, (own, *others))]


def test_quantized_file_that_is_no_faster_is_said_to_be() -> None:
    own, other = file("int8.tflite", "int8"), file("original.tflite", "float32")
    both = {"own": own, "others": (other, file("original.onnx", "float32"))}
    slow = gains(timed(own.name, 3.0), timed(other.name, 2.0), **both)  # type: ignore[arg-type]
    assert slow == ["it takes 3 ms at best, original.tflite 2 ms: 1.50 times as long"]
    assert gains(timed(own.name, 1.0), timed(other.name, 2.0), **both) == []  # type: ignore[arg-type]
    assert gains(timed(own.name, 3.0), timed(other.name, 2.0, source="estimated"), **both) == []  # type: ignore[arg-type]
    assert gains(timed(own.name, 3.0), timed("original.onnx", 2.0), **both) == []  # type: ignore[arg-type]
    assert gains(timed(other.name, 2.0), timed(own.name, 3.0), own=other, others=(own,)) == []


def test_smaller_network_that_is_no_faster_is_said_to_be_with_its_work() -> None:
    own, other = file("pruned.tflite", "float32"), file("original.tflite", "float32")
    macs = [Measurement(name, "macs", value, "", "computed") for name, value in ((own.name, 5.0), (other.name, 10.0))]
    known = (timed(own.name, 2.0), timed(other.name, 2.0))
    assert gains(*known, *macs, own=own, others=(other,)) == [
        "it takes 2 ms at best, original.tflite 2 ms: 1.00 times as long with 50% of the MACs"
    ]
    assert gains(*known, own=own, others=(other,)) == []  # as much work, as far as is known


def test_quantized_file_is_set_beside_the_float_file_of_its_own_network_first() -> None:
    """What pruning won does not hide that quantization made it slower."""
    own, pruned, original = file("phone.onnx", "int8"), file("float.onnx", "float32"), file("original.onnx", "float32")
    work = ((own.name, 1.0), (pruned.name, 1.0), (original.name, 4.0))
    macs = [Measurement(name, "macs", value, "", "computed") for name, value in work]
    both = {"own": own, "others": (original, pruned)}
    slower = [timed(own.name, 1.5), timed(pruned.name, 1.0), timed(original.name, 2.0), *macs]
    assert gains(*slower, **both) == ["it takes 1.5 ms at best, float.onnx 1 ms: 1.50 times as long"]  # type: ignore[arg-type]
    nothing = [timed(own.name, 2.0), timed(pruned.name, 4.0), timed(original.name, 2.0), *macs]
    told = ["it takes 2 ms at best, original.onnx 2 ms: 1.00 times as long with 25% of the MACs"]
    assert gains(*nothing, **both) == told  # type: ignore[arg-type]
    faster_than_both = [timed(own.name, 0.5), timed(pruned.name, 1.0), timed(original.name, 2.0), *macs]
    assert gains(*faster_than_both, **both) == []  # type: ignore[arg-type]


def test_quantized_original_is_not_set_beside_a_network_with_less_work() -> None:
    own, pruned = file("int8.onnx", "int8"), file("pruned.onnx", "float32")
    macs = [Measurement(name, "macs", value, "", "computed") for name, value in ((own.name, 4.0), (pruned.name, 1.0))]
    assert gains(timed(own.name, 2.0), timed(pruned.name, 1.0), *macs, own=own, others=(pruned,)) == []


# ---------------------------------------------------------------- in a run


class Told:
    """A session whose profiler answers, or ends."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def alone(self) -> Any:
        from contextlib import nullcontext

        return nullcontext()

    def push(self, path: Path) -> str:
        return str(path)

    def run(self, job: Any, *, timeout_s: float) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def explained_run(folder: Path, answer: Any) -> runs.Run:
    run = runs.Run(folder, runs.read(finished_run(folder)))
    artifacts = {record.name: record.artifact(folder) for record in run.manifest.artifacts}
    device, runtime = load_device(DEVICE), ("onnxruntime", "cpu")
    session: Any = Told(answer)
    faster.profile_files(
        list(artifacts.values()),
        session,
        MeasureSpec(),
        device,
        runtimes=dict.fromkeys(artifacts, runtime),
        samples=folder / "samples",
        emit=lambda progress: None,
    )
    checks = [Check(name, device, *runtime, MeasureSpec(), Budget()) for name in artifacts]
    faster.explain(run, checks, artifacts)
    return run


def answer(**more: Any) -> dict[str, Any]:
    names = ("ReduceMean", "Mul", "a", "b", "c")
    rows = [{"name": n, "kind": "Mul", "share": 0.8 if n == "a" else 0.05, "by": "CPU"} for n in names]
    return {"layers": rows, "how": "a profile", **more}


def test_run_keeps_profiles_and_findings(tmp_path: Path) -> None:
    run = explained_run(tmp_path / "run", answer())
    found = runs.read(run.folder).speeds
    assert [speed.artifact for speed in found] == ["good.onnx", "bad.onnx"]
    assert all(each.rule == "one layer" and each.share == 0.8 for speed in found for each in speed.findings)
    assert all(speed.findings and speed.how.startswith("a profile; timed with 1 of ") for speed in found)
    kept = json.loads((run.folder / "samples" / f"good.onnx@{DEVICE}.layers.json").read_text())
    assert kept["sha256"] == run.manifest.artifacts[0].sha256 and len(kept["layers"]) == 5


def test_run_goes_on_where_a_profiler_ends(tmp_path: Path) -> None:
    run = explained_run(tmp_path / "run", StageError("worker", "ended with signal 11"))
    assert [speed.findings for speed in run.manifest.speeds] == [(), ()]
    assert "ended with signal 11" in run.manifest.speeds[0].how


def test_profile_of_another_file_is_not_believed(tmp_path: Path) -> None:
    run = explained_run(tmp_path / "run", answer())
    device, record = load_device(DEVICE), run.manifest.artifacts[0]
    check = Check(record.name, device, "onnxruntime", "cpu", MeasureSpec(), Budget())
    artifact = record.artifact(run.folder)
    for changed in ({record.name: replace(artifact, sha256="0" * 64)}, {record.name: artifact}):
        faster.explain(run, [check], changed)
        first = run.manifest.speeds[0]
        assert bool(first.findings) is (changed[record.name].sha256 == record.sha256)
    (run.folder / "samples" / f"{record.name}@{DEVICE}.layers.json").write_text("{")
    faster.explain(run, [check], {record.name: artifact})
    assert run.manifest.speeds[0].how == f"no layer was timed on {DEVICE}"


def test_times_of_an_imitated_device_are_not_believed(tmp_path: Path) -> None:
    device = load_device("raspberry-pi-4-emulated")
    assert device.emulated
    artifact = read_artifact(dynamic(tmp_path / "d.tflite"))
    session: Any = Told(AssertionError("asked"))
    runtimes = {artifact.name: ("litert", "xnnpack")}
    faster.profile_files(
        [artifact], session, MeasureSpec(), device, runtimes=runtimes, samples=tmp_path, emit=lambda progress: None
    )
    rows = ({"name": "b", "kind": "DEPTHWISE_CONV_2D", "share": 1.0, "by": "built-in", "operator": 1},)
    profile = Profile("d", artifact.sha256, device.name, "litert", "xnnpack", 1, rows, ((0,), (2,)))
    with faster.Asking() as asking:
        found = faster.explained(artifact, device, ("litert", "xnnpack", 1), profile=profile, asking=asking)
    assert found is not None and "imitated" in found.how
    assert [finding.share for finding in found.findings] == [None]  # what XNNPACK takes is the same there


def test_engine_is_not_built_once_more_for_a_profile(tmp_path: Path) -> None:
    path = Onnx().conv("a", integer=False).write(tmp_path / "m.onnx")
    artifact = read_artifact(path)
    session: Any = Told(AssertionError("asked"))
    faster.profile_files(
        [artifact],
        session,
        MeasureSpec(),
        HERE,
        runtimes={"m.onnx": ("tensorrt", "none")},
        samples=tmp_path,
        emit=lambda progress: None,
    )
    kept = json.loads((tmp_path / f"m.onnx@{HERE.name}.layers.json").read_text())
    assert kept["layers"] == [] and "bench --layers" in kept["why"]


# ---------------------------------------------------------------- commands


def test_bench_explains_the_files_whose_layers_it_timed(tmp_path: Path) -> None:
    dynamic(tmp_path / "d.tflite")
    asked = ["bench", str(tmp_path / "d.tflite"), "--layers", "--processes", "1", "--seconds", "0.05"]
    text = CliRunner().invoke(cli, asked).output
    assert "d.tflite on this-machine (litert, xnnpack): why it is no faster" in text
    assert "XNNPACK leaves 1 of 3 operators" in text and "layer_share:" not in text
    found = json.loads(CliRunner().invoke(cli, [*asked, "--json"]).stdout)
    (left,) = (each for each in found["speed"][0]["findings"] if each["rule"] == "delegate")  # AMX adds one of its own
    assert left["layers"] == ["b"]


def test_inspect_explains_a_file_on_a_device(tmp_path: Path) -> None:
    dynamic(tmp_path / "d.tflite")
    asked = ["inspect", str(tmp_path / "d.tflite"), "--device", "raspberry-pi-4"]
    text = CliRunner().invoke(cli, asked).output
    assert "raspberry-pi-4 (litert, xnnpack): why it is no faster" in text
    assert json.loads(CliRunner().invoke(cli, [*asked, "--json"]).stdout)["speed"][0]["device"] == "raspberry-pi-4"
    assert "no faster" not in CliRunner().invoke(cli, asked[:2]).output


def test_hostile_layer_name_stays_one_line(tmp_path: Path) -> None:
    path = (
        Lite()
        .conv("a")
        .op("DEQUANTIZE", "u", "float32")
        .op("EXP", "x\n\x1b[31m", "float32")
        .op("QUANTIZE", "d", "int8")
    )
    path.conv("b").write(tmp_path / "m.tflite")
    found = faster.inspected(tmp_path / "m.tflite", "raspberry-pi-4")
    assert found is not None and any("\n" in layer.name for layer in found.layers)
    assert all(line.isprintable() for line in faster.lines([found]))


def test_rows_of_a_profile_keep_their_place_in_json(tmp_path: Path) -> None:
    kept = Profile("m", "ab", "d", "litert", "xnnpack", 1, ({"name": "a", "share": 1.0},), ((0, 1), (3,)))
    from pydantic import TypeAdapter

    adapter = TypeAdapter(Profile)
    assert adapter.validate_json(adapter.dump_json(kept)) == kept


# ---------------------------------------------------------------- real files, by the tools that make such


def profiled(path: Path, runtime: str, delegate: str) -> list[Any]:
    artifact = read_artifact(path)
    session = open_session(HERE)
    try:
        found = shares.profiled(artifact, session, MeasureSpec(), HERE, runtime=(runtime, delegate))
    finally:
        session.close()
    with faster.Asking() as asking:
        speed = faster.explained(artifact, HERE, (runtime, delegate, 1), profile=found, asking=asking)
    assert speed is not None
    return [speed, *speed.findings]


def test_dynamic_quantization_leaves_depthwise_layers_to_litert(tmp_path: Path) -> None:
    from ai_edge_quantizer import quantizer, recipe

    from tests.sparse_net import Net

    (tmp_path / "float.tflite").write_bytes(Net(0.0, same="never").content())
    made = quantizer.Quantizer(str(tmp_path / "float.tflite"))
    made.load_quantization_recipe(recipe.dynamic_wi8_afp32())
    (tmp_path / "dynamic.tflite").write_bytes(bytes(made.quantize().quantized_model))
    clean, *none = profiled(tmp_path / "float.tflite", "litert", "xnnpack")
    assert [finding.rule for finding in none if finding.rule != "one layer"] == [], clean
    _, first, *_ = profiled(tmp_path / "dynamic.tflite", "litert", "xnnpack")
    assert (first.rule, first.count, first.shown_by) == ("delegate", 5, "runtime") and "6 pieces" in first.text


def test_weights_packed_sparse_are_told_by_the_rule_of_the_processor(tmp_path: Path) -> None:
    from tests.sparse_net import Net
    from toolkit.exporters import tflite_packed

    (tmp_path / "p.tflite").write_bytes(tflite_packed.pack(Net(0.8, same="never").content())[0])
    rules = {}
    for device in ("raspberry-pi-4", "intel-nuc-11"):
        found = faster.inspected(tmp_path / "p.tflite", device)
        assert found is not None
        rules[device] = [finding for finding in found.findings if finding.rule == "zeros"]
    assert rules["raspberry-pi-4"] == []  # sparse kernels may run there
    (zeros,) = rules["intel-nuc-11"]
    assert "off on x86" in zeros.text and zeros.shown_by == "rule" and zeros.evidence.startswith("XNNPACK, src/")


@pytest.mark.parametrize("symmetric", [True, False])
def test_onnx_runtime_shows_which_nodes_it_left_in_float(tmp_path: Path, symmetric: bool) -> None:
    zero = np.int8(0) if symmetric else np.uint8(0)
    net = Onnx().turned("in", zero=zero).conv("a").node("Relu", "r").turned("r", zero=zero).conv("b")
    net.turned("b", zero=zero).write(tmp_path / "m.onnx")
    _, *found = profiled(tmp_path / "m.onnx", "onnxruntime", "cpu")
    islands = [finding for finding in found if finding.rule == "float island"]
    assert bool(islands) is symmetric
    if symmetric:
        (island,) = islands
        assert island.shown_by == "measured" and 'flavour = "asymmetric"' in island.advice


@pytest.mark.data
@pytest.mark.parametrize("name", ["vww_96_int8.tflite", "pretrainedResnet_quant.tflite"])
def test_published_int8_files_hold_no_island_and_no_round_trip(name: str) -> None:
    data = os.environ.get("EDGEKIT_DATA")
    if not data:
        pytest.skip("EDGEKIT_DATA is not set")
    found = faster.inspected(Path(data) / "models" / "legacy" / name, "raspberry-pi-4")
    sparse = {"zeros"} if name.startswith("vww") else set()  # 83% of its weights are zero, as published
    assert found is not None and {finding.rule for finding in found.findings} == sparse
    assert sum(layer.macs or 0.0 for layer in found.layers) == pytest.approx(1.0)
