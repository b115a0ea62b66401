"""Command lines of trtexec: as each version has them, and as a stand-in of that version takes them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.tensorrt.conftest import Install, Start
from toolkit.errors import InputError, UnsupportedError
from toolkit.tensorrt import trtexec, trtexec_output
from toolkit.tensorrt.trtexec import TimingSpec
from toolkit.tensorrt.types import BuildSpec, ShapeRange

VERSIONS = ("8.0.1", "8.2.1", "8.5.2", "8.6.2", "10.3.0", "10.16.2", "11.4.1")
WEAK = BuildSpec(workspace_mib=256, strongly_typed=False, fp16=True, int8=True)
STRONG = BuildSpec(workspace_mib=256)
SHAPES = {"image": ShapeRange((1, 3, 32, 32), (4, 3, 32, 32), (8, 3, 32, 32)), "in:0": ShapeRange((1,), (4,), (8,))}
SHORT = TimingSpec(seconds=0.1, iterations=20, shapes={"image": (4, 3, 32, 32), "in:0": (4,)})


def spec_for(version: str) -> BuildSpec:
    """What TensorRT can build of a file: types in the graph from 10 on, hints before."""
    return replace(STRONG if int(version.partition(".")[0]) >= 10 else WEAK, shapes=SHAPES)


def build(version: str, spec: BuildSpec, path: str = "trtexec") -> list[str]:
    return trtexec.build_command(path, spec, onnx="m.onnx", engine="m.engine", version=version)


@pytest.mark.parametrize(
    ("banner", "version"),
    [
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8201] # trtexec", "8.2.1"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec --help", "8.5.2"),
        ("noise\n&&&& RUNNING TensorRT.trtexec [TensorRT v8603] # x", "8.6.3"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v100300] [b17] # x", "10.3.0"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v101502] [b1] # x", "10.15.2"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v110100] [b106] # x", "11.1.0"),
        ("&&&& RUNNING TensorRT.trtexec [TensorRT v11.1.0.106] # x", "11.1.0"),
        ("bash: trtexec: command not found", None),
        ("", None),
    ],
)
def test_version_comes_from_the_banner(banner: str, version: str | None) -> None:
    assert trtexec.version_from(banner) == version


def test_build_command_on_8_2_is_this() -> None:
    spec = replace(WEAK, int8=False, timing_cache="t.cache", sparse=True)
    assert build("8.2.1", spec) == [
        "trtexec",
        "--onnx=m.onnx",
        "--saveEngine=m.engine",
        "--fp16",
        "--workspace=256",
        "--sparsity=enable",
        "--timingCacheFile=t.cache",
        "--profilingVerbosity=detailed",
        "--buildOnly",
    ]


def test_build_command_on_11_is_this() -> None:
    spec = replace(STRONG, shapes=SHAPES, optimization_level=3, dla_core=1)
    assert build("11.4.1", spec) == [
        "trtexec",
        "--onnx=m.onnx",
        "--saveEngine=m.engine",
        "--memPoolSize=workspace:256",
        "--minShapes=image:1x3x32x32,in:0:1",
        "--optShapes=image:4x3x32x32,in:0:4",
        "--maxShapes=image:8x3x32x32,in:0:8",
        "--useDLACore=1",
        "--allowGPUFallback",
        "--builderOptimizationLevel=3",
        "--profilingVerbosity=detailed",
        "--skipInference",
    ]


@pytest.mark.parametrize(
    ("version", "spec", "says"),
    [
        ("8.6.1", STRONG, "builds no strongly typed network"),
        ("11.4.1", WEAK, "has no --fp16, --int8"),
        ("8.5.2", replace(WEAK, optimization_level=3), "no optimization levels"),
        ("7.1.3", WEAK, "older than any"),
    ],
)
def test_what_a_version_cannot_do_is_refused(version: str, spec: BuildSpec, says: str) -> None:
    with pytest.raises(UnsupportedError, match=says):
        build(version, spec)


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        (replace(STRONG, fp16=True), "fp16 asked of a strongly typed build"),
        (replace(STRONG, workspace_mib=0), "at least 1"),
        (replace(STRONG, dla_core=-1), "0 or more"),
        (replace(STRONG, shapes={"x": ShapeRange((2, 3), (1, 3), (4, 3))}), "no growing range"),
        (replace(STRONG, shapes={"x": ShapeRange((1, 3), (1, 3, 4), (4, 3))}), "no growing range"),
        (replace(STRONG, shapes={"x,y": ShapeRange((1,), (1,), (4,))}), "rename the input"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(spec: BuildSpec, says: str) -> None:
    with pytest.raises(InputError, match=says):
        build("10.3.0", spec)


def test_layers_of_a_version_without_an_inspector_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="writes no layers"):
        trtexec.build_command("trtexec", WEAK, onnx="m", engine="e", version="8.0.1", layer_info="l.json")


def test_a_version_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="'new' is no version"):
        build("new", STRONG)


def timing(name: str, version: str, spec: TimingSpec, folder: Path = Path(), path: str = "trtexec") -> list[str]:
    engine = str(folder / "m.engine")
    if name == "throughput":
        return trtexec.throughput_command(path, spec, engine=engine, version=version, streams=2)
    if name == "profile":
        files = {"profile": str(folder / "p.json")}
        if version >= "8.2" or version.startswith("1"):
            files["layer_info"] = str(folder / "l.json")
        return trtexec.profile_command(path, spec, engine=engine, version=version, **files)
    command = trtexec.compute_command if name == "compute" else trtexec.transfers_command
    return command(path, spec, engine=engine, version=version, times=str(folder / "t.json"))


@pytest.mark.parametrize("name", ["compute", "transfers", "throughput", "profile"])
@pytest.mark.parametrize("version", VERSIONS)
def test_only_throughput_has_several_streams(name: str, version: str) -> None:
    several = [item for item in timing(name, version, SHORT) if "treams" in item]
    assert bool(several) == (name == "throughput")


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("wanted", [True, False])
def test_stand_in_measures_what_was_asked_on_every_version(
    version: str, wanted: bool, install: Install, start: Start, tmp_path: Path
) -> None:
    """Built, then timed in four ways; transfers, CUDA graph and spin-wait are the same whatever the defaults are."""
    program = str(install(tensorrt=version) / "trtexec")
    (tmp_path / "m.onnx").write_bytes(b"synthetic")
    onnx, engine = str(tmp_path / "m.onnx"), str(tmp_path / "m.engine")
    spec = replace(SHORT, cuda_graph=wanted, spin_wait=wanted)
    built = start(trtexec.build_command(program, spec_for(version), onnx=onnx, engine=engine, version=version))
    assert built.returncode == 0, built.stderr
    assert trtexec.version_from(built.stdout) == version
    for name, transfers in (("compute", False), ("transfers", True), ("throughput", True)):
        done = start(timing(name, version, spec, tmp_path, program))
        log = trtexec_output.read_log(f"{done.stdout}\n{done.stderr}")
        assert (done.returncode, log.passed, log.errors) == (0, True, ())
        assert trtexec_output.unmet(log, spec, transfers=transfers) == ()
        assert log.settings["Streams"] == ("2" if name == "throughput" else "1")
        assert log.settings["Data transfers"] == ("Enabled" if transfers else "Disabled")
        assert log.settings["CUDA Graph"] == log.settings["Spin-wait"] == ("Enabled" if wanted else "Disabled")
        assert log.throughput_qps is not None
    profiled = start(timing("profile", version, spec, tmp_path, program))
    assert profiled.returncode == 0, profiled.stderr
    assert trtexec_output.profile((tmp_path / "p.json").read_text()).iterations == 100


@pytest.mark.parametrize("version", ["8.2.1", "8.5.2", "8.6.2", "10.3.0"])
def test_stand_in_takes_hints_of_weakly_typed_builds(
    version: str, install: Install, start: Start, tmp_path: Path
) -> None:
    program = str(install(tensorrt=version) / "trtexec")
    (tmp_path / "m.onnx").write_bytes(b"synthetic")
    spec = replace(WEAK, sparse=True, timing_cache=str(tmp_path / "t.cache"))
    files = {"onnx": str(tmp_path / "m.onnx"), "engine": str(tmp_path / "m.engine")}
    done = start(trtexec.build_command(program, spec, **files, version=version))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("real", "taken_for", "option"),
    [("11.4.1", "8.5.2", "--fp16"), ("8.5.2", "10.3.0", "--stronglyTyped"), ("8.2.1", "8.5.2", "--memPoolSize"),
     ("8.5.2", "8.6.2", "--skipInference"), ("11.4.1", "10.3.0", "--stronglyTyped")],
)  # fmt: skip
def test_stand_in_refuses_another_versions_options_as_trtexec_does(
    real: str, taken_for: str, option: str, install: Install, start: Start, tmp_path: Path
) -> None:
    program = str(install(tensorrt=real) / "trtexec")
    (tmp_path / "m.onnx").write_bytes(b"synthetic")
    done = start(build(taken_for, spec_for(taken_for), program))
    log = trtexec_output.read_log(f"{done.stdout}\n{done.stderr}")
    assert done.returncode == 1
    assert not log.passed
    assert any(line.startswith(f"Unknown option: {option}") for line in log.errors)
    assert "(" in " ".join(trtexec_output.errors_in_words(log))  # and says what that means


def test_stand_in_loads_no_engine_of_another_version(install: Install, start: Start, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"synthetic")
    files = {"onnx": str(tmp_path / "m.onnx"), "engine": str(tmp_path / "m.engine")}
    start(trtexec.build_command(str(install(tensorrt="10.3.0") / "trtexec"), STRONG, **files, version="10.3.0"))
    program = str(install(tensorrt="10.16.2") / "trtexec")
    done = start(timing("compute", "10.16.2", SHORT, tmp_path, program))
    log = trtexec_output.read_log(f"{done.stdout}\n{done.stderr}")
    assert done.returncode == 1
    assert any("build it here" in line for line in trtexec_output.errors_in_words(log))


def test_dla_is_timed_without_cuda_graphs(install: Install, start: Start, tmp_path: Path) -> None:
    spec = replace(SHORT, dla_core=0, shapes={})
    assert not any("CudaGraph" in item for item in timing("compute", "10.3.0", spec))
    assert "--noCudaGraph" in timing("compute", "11.4.1", spec)
