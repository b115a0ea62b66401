"""DLA: what is refused before a build, and what fell back to the GPU, named. Logs are synthetic."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.tensorrt.conftest import Install, Start
from toolkit.errors import InputError
from toolkit.tensorrt import dla, trtexec
from toolkit.tensorrt.types import BuildSpec, ShapeRange

SPEC = BuildSpec(workspace_mib=256, strongly_typed=False, fp16=True, dla_core=0)
IMAGE = {"image": (1, 3, 224, 224)}
LOG = """[08/31/2026-07:07:49] [I] [TRT] ---------- Layers Running on DLA ----------
[08/31/2026-07:07:49] [I] [TRT] [DlaLayer] {ForeignNode[/cnn/cnn.0/Conv.../cnn/cnn.11/Relu]}
[08/31/2026-07:07:49] [I] [TRT] [DlaLayer] {ForeignNode[/linear/Gemm]},
[08/31/2026-07:07:49] [I] [TRT] ---------- Layers Running on GPU ----------
[08/31/2026-07:07:49] [W] [TRT] Layer '/a/Softmax' is not supported on DLA, falling back to GPU.
[08/31/2026-07:07:49] [I] [TRT] [GpuLayer] POOLING: /pool/GlobalAveragePool
[08/31/2026-07:07:49] [I] [TRT] [GpuLayer] PWN(PWN(Sigmoid_4), Mul_5)
"""


def refused(spec: BuildSpec, inputs: dict[str, tuple[int, ...]] | None = None, **where: str) -> tuple[str, ...]:
    place = {"board": "jetson-orin-nx-16", "version": "10.3.0", **where}
    return dla.refusals(spec, inputs or IMAGE, board=place["board"], version=place["version"])


def test_what_dla_can_take_is_not_refused() -> None:
    assert refused(SPEC) == ()
    assert refused(replace(SPEC, dla_core=1)) == ()
    assert refused(SPEC, board="jetson-agx-orin-64", version="11.4.1") == ()


def test_nothing_is_refused_where_no_dla_is_asked_for() -> None:
    assert refused(replace(SPEC, dla_core=None, fp16=False), board="jetson-orin-nano-8") == ()


@pytest.mark.parametrize(
    ("spec", "inputs", "where", "says"),
    [
        (SPEC, None, {"board": "jetson-orin-nano-8"}, "jetson-orin-nano-8 has no DLA cores, core 0 was asked for"),
        (replace(SPEC, dla_core=1), None, {"board": "jetson-orin-nx-8"}, "has 1 DLA core, core 1 was asked for"),
        (replace(SPEC, dla_core=2), None, {}, "has 2 DLA cores, core 2 was asked for"),
        (SPEC, None, {"version": "10.16.2"}, "10.16.2 has no DLA"),
        (SPEC, None, {"version": "11.0.0"}, "11.0.0 has no DLA"),
        (SPEC, None, {"version": "11.4.1"}, "on AGX Orin only"),
        (replace(SPEC, fp16=False), None, {}, "float16 and int8 only"),
        (SPEC, {"image": (-1, 3, 8, 8)}, {}, "free dimensions"),
        (SPEC, {"image": (4097, 3, 8, 8)}, {}, "batch of 4097, DLA takes at most 4096"),
        (SPEC, {"image": (1, 3, 8193, 8)}, {}, "dimension of 8193, DLA takes at most 8192"),
        (
            replace(SPEC, shapes={"image": ShapeRange((1, 3, 8, 8), (1, 3, 8, 8), (4, 3, 8, 8))}),
            {"image": (-1, 3, 8, 8)},
            {},
            "ranges from",
        ),
    ],
)
def test_limits_are_named_before_the_build(
    spec: BuildSpec, inputs: dict[str, tuple[int, ...]] | None, where: dict[str, str], says: str
) -> None:
    (found,) = refused(spec, inputs, **where)
    assert says in found


def test_limits_themselves_are_allowed() -> None:
    assert refused(SPEC, {"image": (4096, 3, 8192, 1)}) == ()
    fixed = ShapeRange((2, 3, 8, 8), (2, 3, 8, 8), (2, 3, 8, 8))
    assert refused(replace(SPEC, shapes={"image": fixed}), {"image": (-1, 3, 8, 8)}) == ()


def test_qdq_before_11_4_is_a_doubt() -> None:
    assert "expect such layers on the GPU" in dla.doubts("10.3.0", quantized=True)[0]
    assert dla.doubts("11.4.1", quantized=True) == dla.doubts("8.5.2", quantized=False) == ()


def test_fallback_is_named() -> None:
    found = dla.placement(LOG)
    assert found.on_dla == ("{ForeignNode[/cnn/cnn.0/Conv.../cnn/cnn.11/Relu]}", "{ForeignNode[/linear/Gemm]}")
    assert found.on_gpu == ("POOLING: /pool/GlobalAveragePool", "PWN(PWN(Sigmoid_4), Mul_5)")
    assert found.reasons == ("Layer '/a/Softmax' is not supported on DLA, falling back to GPU.",)
    assert (
        found.in_words() == "2 parts on DLA, on the GPU: POOLING: /pool/GlobalAveragePool, PWN(PWN(Sigmoid_4), Mul_5)"
    )


def test_a_build_without_dla_says_so() -> None:
    found = dla.placement("[I] [TRT] ---------- Layers Running on DLA ----------\n[I] [TRT] [GpuLayer] Conv_0\n")
    assert found.in_words() == "nothing runs on DLA; on the GPU: Conv_0"
    assert dla.placement("").in_words() == "nothing runs on DLA; on the GPU: nothing that was named"


def test_layer_info_says_where_layers_run() -> None:
    layers = [{"Name": "{ForeignNode[a...b]}", "LayerType": "DLA"}, {"Name": "softmax", "LayerType": "SoftMax"}]
    found = dla.placement_in_layers(json.dumps({"Layers": layers, "Bindings": []}))
    assert (found.on_dla, found.on_gpu) == (("{ForeignNode[a...b]}",), ("softmax",))


@pytest.mark.parametrize("text", ["", "{}", '{"Layers": ["conv1"]}', '{"Layers": [{"Name": "a"}]}', "[]"])
def test_layers_without_types_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="detailed"):
        dla.placement_in_layers(text)


def test_sixteen_parts_fill_a_core() -> None:
    full = dla.Placement(tuple(map(str, range(16))), ())
    assert "a core holds 16" in dla.loadables(full)
    assert dla.loadables(dla.Placement(full.on_dla[1:], ())) == ""


def test_stand_in_builds_for_dla_where_the_module_has_one(install: Install, start: Start, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"synthetic")
    files = {"onnx": str(tmp_path / "m.onnx"), "engine": str(tmp_path / "m.engine")}
    program = str(install(tensorrt="10.3.0", board="jetson-orin-nx-16") / "trtexec")
    done = start(trtexec.build_command(program, SPEC, **files, version="10.3.0"))
    assert done.returncode == 0
    assert dla.placement(done.stdout).on_dla == ("{ForeignNode[/conv1/Conv.../layer3/Relu]}",)
    assert dla.placement(done.stdout).on_gpu[1] == "SOFTMAX: /Softmax"
    program = str(install(tensorrt="10.3.0", board="jetson-orin-nano-8") / "trtexec")
    failed = start(trtexec.build_command(program, SPEC, **files, version="10.3.0"))
    assert failed.returncode == 1
    assert "Cannot create DLA engine" in failed.stderr
