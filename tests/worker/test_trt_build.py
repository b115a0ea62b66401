"""The builder, by the calls it makes of small fakes of five versions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.worker.fakes.network import network

VERSIONS = ("8.5.2.2", "8.6.2", "10.3.0", "10.16.2", "11.4.1")
WEAK = ("8.5.2.2", "8.6.2", "10.3.0", "10.16.2")
STRONG = ("10.3.0", "10.16.2", "11.4.1")
SPEC = {"workspace_mib": 256}
FREE = {"x": [[1, 16, 8, 8], [2, 16, 8, 8], [4, 16, 8, 8]]}


def calls(trt: Any, name: str) -> list[tuple[Any, ...]]:
    return [call[1:] for call in trt.world.calls if call[0] == name]


# ---------------------------------------------------------------- the fakes


@pytest.mark.parametrize("version", VERSIONS)
def test_fake_has_no_name_outside_the_table(fake: Any, version: str) -> None:
    trt = fake(version)
    logger = type("Logger", (trt.ILogger,), {"log": lambda self, level, text: None})()
    made = trt.Builder(logger)
    with pytest.raises(AttributeError, match=r"has no Builder.create_everything"):
        made.create_everything()
    config = made.create_builder_config()
    with pytest.raises(AttributeError, match=r"has no IBuilderConfig.workspace"):
        config.workspace = 3
    assert hasattr(made, "platform_has_fast_int8") == (version in WEAK)
    assert hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED") == (version in STRONG)
    assert hasattr(trt.BuilderFlag, "FP16") == (version in WEAK)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    if version == "8.5.2.2":
        with pytest.raises(AttributeError, match=r"has no IBuilderConfig.builder_optimization_level"):
            config.builder_optimization_level = 3


# ---------------------------------------------------------------- how networks are typed


@pytest.mark.parametrize(("version", "bits"), [("10.3.0", 0b10), ("10.16.2", 0b10), ("11.4.1", 0)])
def test_strong_typing_is_asked_by_the_versions_own_bit(
    builder: Any, fake: Any, tmp_path: Path, version: str, bits: int
) -> None:
    """Bit 1 in 10; in 11 there is nothing else, and the flag is deprecated."""
    trt = fake(version)
    plan, facts = builder.build(network(tmp_path / "m.onnx"), SPEC, trt)
    assert plan.startswith(b"fake plan of " + version.encode())
    assert calls(trt, "create_network") == [(bits,)]
    assert calls(trt, "set_flag") == []
    assert facts["strongly_typed"] is True
    assert facts["flags"] == (["STRONGLY_TYPED"] if bits else [])


@pytest.mark.parametrize(("version", "bits"), [("8.5.2.2", 0b1), ("8.6.2", 0b1), ("10.3.0", 0), ("10.16.2", 0)])
def test_weak_builders_get_the_flags_that_were_asked(
    builder: Any, fake: Any, tmp_path: Path, version: str, bits: int
) -> None:
    """Batches are explicit only when 8 is told so."""
    trt = fake(version)
    spec = {**SPEC, "strongly_typed": False, "int8": True, "fp16": True}
    _, facts = builder.build(network(tmp_path / "m.onnx", quantized=True), spec, trt)
    assert calls(trt, "create_network") == [(bits,)]
    assert calls(trt, "set_flag") == [("FP16",), ("INT8",)]
    assert facts["strongly_typed"] is False
    assert facts["flags"] == [*(["EXPLICIT_BATCH"] if bits else []), "FP16", "INT8"]


@pytest.mark.parametrize("version", ["8.5.2.2", "8.6.2"])
def test_strong_typing_is_refused_before_it_existed(builder: Any, fake: Any, tmp_path: Path, version: str) -> None:
    with pytest.raises(builder.BuildError, match=r"has no strong typing: ask for strongly_typed = false"):
        builder.build(network(tmp_path / "m.onnx"), SPEC, fake(version))


def test_weak_typing_is_refused_where_it_is_gone(builder: Any, fake: Any, tmp_path: Path) -> None:
    with pytest.raises(builder.BuildError, match=r"strongly typed networks alone"):
        builder.build(network(tmp_path / "m.onnx"), {**SPEC, "strongly_typed": False}, fake("11.4.1"))


@pytest.mark.parametrize("version", STRONG)
@pytest.mark.parametrize(("key", "name"), [("fp16", "float16"), ("int8", "int8")])
def test_precision_the_graph_does_not_hold_is_refused(
    builder: Any, fake: Any, tmp_path: Path, version: str, key: str, name: str
) -> None:
    with pytest.raises(builder.BuildError, match=f"{name} was asked for and the file holds none"):
        builder.build(network(tmp_path / "m.onnx"), {**SPEC, key: True}, fake(version))


@pytest.mark.parametrize("version", STRONG)
def test_precision_the_graph_holds_needs_no_flag(builder: Any, fake: Any, tmp_path: Path, version: str) -> None:
    trt = fake(version)
    file = network(tmp_path / "m.onnx", quantized=True, half=True)
    builder.build(file, {**SPEC, "fp16": True, "int8": True}, trt)
    assert calls(trt, "set_flag") == []


@pytest.mark.parametrize("version", WEAK)
def test_weak_int8_needs_a_quantized_file_and_the_other_way_round(
    builder: Any, fake: Any, tmp_path: Path, version: str
) -> None:
    weak = {**SPEC, "strongly_typed": False}
    with pytest.raises(builder.BuildError, match=r"int8 was asked for and the file holds none"):
        builder.build(network(tmp_path / "m.onnx"), {**weak, "int8": True}, fake(version))
    with pytest.raises(builder.BuildError, match=r"is quantized.*int8 = true"):
        builder.build(network(tmp_path / "q.onnx", quantized=True), weak, fake(version))


@pytest.mark.parametrize(("lacks", "words"), [("fast_int8", "no fast int8"), ("fast_fp16", "no fast float16")])
def test_hardware_too_old_for_a_type_is_told(builder: Any, fake: Any, tmp_path: Path, lacks: str, words: str) -> None:
    trt = fake("8.5.2.2")
    setattr(trt.world, lacks, False)
    spec = {**SPEC, "strongly_typed": False, "int8": True, "fp16": True}
    with pytest.raises(builder.BuildError, match=f"{words}: it is too old"):
        builder.build(network(tmp_path / "m.onnx", quantized=True), spec, trt)


# ---------------------------------------------------------------- settings


@pytest.mark.parametrize("version", VERSIONS)
def test_settings_reach_the_builder(builder: Any, fake: Any, tmp_path: Path, version: str) -> None:
    trt = fake(version)
    spec = {**SPEC, "strongly_typed": version in STRONG, "sparse": True, "shapes": FREE}
    if version != "8.5.2.2":
        spec["optimization_level"] = 4
    _, facts = builder.build(network(tmp_path / "m.onnx", batch="n"), spec, trt)
    assert calls(trt, "set_memory_pool_limit") == [("WORKSPACE", 256 * 2**20)]
    assert calls(trt, "set_shape") == [("x", *map(tuple, FREE["x"]))]
    assert calls(trt, "add_optimization_profile") == [()]
    assert [name for (name,) in calls(trt, "set_flag")] == ["SPARSE_WEIGHTS"]
    settings = dict(calls(trt, "set"))
    assert str(settings["profiling_verbosity"]) == "DETAILED"
    assert settings.get("builder_optimization_level") == (None if version == "8.5.2.2" else 4)
    assert facts["inputs"] == [["x", "FLOAT", [-1, 16, 8, 8]]]
    assert (facts["version"], facts["workspace_mib"]) == (version, 256)


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (
            ("(Sparsity) Found 3 layer(s) eligible to use sparse tactics: conv", "(Sparsity) Chose 0 layer(s) using: "),
            "2:4: 1 layers could use sparse kernels, 0 do",
        ),
        ((), "2:4: TensorRT 10.3.0 does not say which layers use sparse kernels"),
    ],
)
def test_what_came_of_sparse_kernels_is_told_where_they_were_allowed(
    builder: Any, fake: Any, tmp_path: Path, told: tuple[str, ...], expected: str
) -> None:
    trt = fake("10.3.0")
    trt.world.told = told
    _, facts = builder.build(network(tmp_path / "m.onnx"), {**SPEC, "sparse": True}, trt)
    assert facts["warnings"] == [expected]
    _, facts = builder.build(network(tmp_path / "m.onnx"), SPEC, trt)
    assert facts["warnings"] == []


def test_optimization_level_is_refused_before_8_6(builder: Any, fake: Any, tmp_path: Path) -> None:
    spec = {**SPEC, "strongly_typed": False, "optimization_level": 3}
    with pytest.raises(builder.BuildError, match=r"no optimization levels"):
        builder.build(network(tmp_path / "m.onnx"), spec, fake("8.5.2.2"))


@pytest.mark.parametrize(
    ("shapes", "words"),
    [
        ({}, r"'x' has free dimensions \[-1, 16, 8, 8\].*--shapes x=1x16x8x8,1x16x8x8,8x16x8x8"),
        ({**FREE, "z": FREE["x"]}, "no input with free dimensions of that name: z"),
        ({"x": [[1, 16, 8, 8]]}, "a least, a usual and a greatest"),
        ({"x": [[1, 16, 8], [1, 16, 8], [1, 16, 8]]}, "takes"),
        ({"x": [[1, 3, 8, 8], [2, 3, 8, 8], [4, 3, 8, 8]]}, "takes"),
        ({"x": [[0, 16, 8, 8], [2, 16, 8, 8], [4, 16, 8, 8]]}, "takes"),
        ({"x": [[4, 16, 8, 8], [2, 16, 8, 8], [8, 16, 8, 8]]}, "must grow"),
    ],
)
def test_ranges_that_do_not_fit_are_refused(
    builder: Any, fake: Any, tmp_path: Path, shapes: dict[str, Any], words: str
) -> None:
    with pytest.raises(builder.BuildError, match=words):
        builder.build(network(tmp_path / "m.onnx", batch="n"), {**SPEC, "shapes": shapes}, fake("10.3.0"))


def test_ranges_of_a_build_spec_are_read_as_it_holds_them(builder: Any, fake: Any, tmp_path: Path) -> None:
    from dataclasses import asdict

    from toolkit.tensorrt.types import BuildSpec, ShapeRange

    trt = fake("10.3.0")
    spec = BuildSpec(256, {"x": ShapeRange((1, 16, 8, 8), (2, 16, 8, 8), (4, 16, 8, 8))})
    builder.build(network(tmp_path / "m.onnx", batch="n"), asdict(spec), trt)
    assert calls(trt, "set_shape") == [("x", *map(tuple, FREE["x"]))]
    assert set(asdict(spec)) == builder.KEYS


def test_timing_cache_is_kept_and_one_of_another_device_begun_anew(builder: Any, fake: Any, tmp_path: Path) -> None:
    cache, file = tmp_path / "timing.cache", network(tmp_path / "m.onnx")
    spec = {**SPEC, "timing_cache": str(cache)}
    builder.build(file, spec, fake("10.3.0"))
    assert cache.read_bytes() == b"+timings"
    trt = fake("10.3.0")
    builder.build(file, spec, trt)
    assert calls(trt, "set_timing_cache") == [(b"+timings", False)]
    trt = fake("10.3.0")
    trt.world.cache_fits = False
    _, facts = builder.build(file, spec, trt)
    assert calls(trt, "set_timing_cache") == [(b"+timings+timings", False), (b"", False)]
    assert any("another TensorRT or GPU" in text for text in facts["warnings"])
    assert cache.read_bytes() == b"+timings"


def test_unknown_key_is_refused_with_those_there_are(builder: Any, fake: Any, tmp_path: Path) -> None:
    with pytest.raises(builder.BuildError, match=r"no such key of a build: worspace.*workspace_mib"):
        builder.build(network(tmp_path / "m.onnx"), {"worspace": 1}, fake("10.3.0"))


def test_version_below_the_floor_is_sent_to_trtexec(builder: Any, fake: Any, tmp_path: Path) -> None:
    with pytest.raises(builder.BuildError, match=r"TensorRT 8\.2\.1.*trtexec"):
        builder.build(network(tmp_path / "m.onnx"), SPEC, fake("8.2.1"))


# ---------------------------------------------------------------- DLA


def test_layers_the_dla_leaves_to_the_gpu_are_named(builder: Any, fake: Any, tmp_path: Path) -> None:
    trt = fake("8.5.2.2")
    trt.world.dla_cores, trt.world.on_dla = 2, ("conv",)
    spec = {**SPEC, "strongly_typed": False, "fp16": True, "dla_core": 1}
    _, facts = builder.build(network(tmp_path / "m.onnx"), spec, trt)
    settings = dict(calls(trt, "set"))
    assert (str(settings["default_device_type"]), settings["DLA_core"]) == ("DLA", 1)
    assert calls(trt, "set_flag") == [("FP16",), ("GPU_FALLBACK",)]
    assert facts["on_gpu"] == ["relu"]


@pytest.mark.parametrize(
    ("cores", "on_dla", "more", "words"),
    [
        (0, ("conv",), {}, "sees no DLA here, core 1 was asked for"),
        (1, ("conv",), {}, "sees 1 DLA here"),
        (2, (), {}, "the DLA takes no layer"),
        (2, ("conv",), {"fp16": False}, "float16 and int8 alone"),
        (2, ("conv",), {"shapes": FREE}, "a DLA takes one shape"),
    ],
)
def test_dla_that_cannot_do_it_is_refused(
    builder: Any, fake: Any, tmp_path: Path, cores: int, on_dla: tuple[str, ...], more: dict[str, Any], words: str
) -> None:
    trt = fake("10.3.0")
    trt.world.dla_cores, trt.world.on_dla = cores, on_dla
    spec = {**SPEC, "strongly_typed": False, "fp16": True, "dla_core": 1, **more}
    with pytest.raises(builder.BuildError, match=words):
        builder.build(network(tmp_path / "m.onnx", batch="n" if "shapes" in more else 1), spec, trt)


# ---------------------------------------------------------------- what TensorRT says


def test_all_errors_of_the_parser_are_told_and_explained(builder: Any, fake: Any, tmp_path: Path) -> None:
    trt = fake("10.3.0")
    trt.world.parse_errors = ("node 3 (Foo): no importer", "node 9: Non-zero zero point is not supported")
    with pytest.raises(builder.BuildError) as caught:
        builder.build(network(tmp_path / "m.onnx"), SPEC, trt)
    assert caught.value.lines == list(trt.world.parse_errors)
    assert "no importer | node 9" in str(caught.value)
    assert "export the int8 file for TensorRT" in str(caught.value)


def test_gpu_of_another_age_is_told(builder: Any, fake: Any, tmp_path: Path) -> None:
    """The words of TensorRT 10.7 on a GPU it does not know."""
    trt = fake("10.16.2")
    trt.world.build_errors = ["API Usage Error (Target GPU SM 61 is not supported by this TensorRT release.)"]
    with pytest.raises(builder.BuildError, match=r"SM 61.*too old or too new for this TensorRT"):
        builder.build(network(tmp_path / "m.onnx"), SPEC, trt)


def test_only_the_likeliest_reason_is_told(builder: Any) -> None:
    """What TensorRT says of asymmetric files speaks of uint8, too."""
    said = "Non-zero zero point is not supported. Please set kENABLE_UINT8_AND_ASYMMETRIC_QUANTIZATION_DLA"
    assert str(builder.BuildError("no", [said])).count("(") == 1
    assert "has no such operator" in str(builder.BuildError("no", ["node 3 (ConvInteger): UNSUPPORTED_NODE"]))


def test_parser_lives_until_the_engine_is_built(
    builder: Any, fake: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The weights of the network lie in its parser, which nothing of TensorRT holds."""
    import gc
    import weakref

    trt, alive = fake("10.3.0"), []
    made = trt.OnnxParser

    def parser(*arguments: Any) -> Any:
        found = made(*arguments)
        alive.append(weakref.ref(found))
        return found

    def build(self: Any, network: Any, config: Any) -> bytes:
        gc.collect()
        alive.append(alive[0]() is not None)
        return b"plan"

    monkeypatch.setattr(trt, "OnnxParser", parser)
    monkeypatch.setattr("trt_fake.Builder._build_serialized_network", build)
    builder.build(network(tmp_path / "m.onnx"), SPEC, trt)
    assert alive[1] is True


def test_no_gpu_is_unavailable_and_no_mistake_of_the_file(builder: Any, fake: Any, tmp_path: Path) -> None:
    trt = fake("10.3.0")
    trt.world.gpu = False
    with pytest.raises(builder.BuildError, match=r"finds no GPU.*error: 35") as caught:
        builder.build(network(tmp_path / "m.onnx"), SPEC, trt)
    assert caught.value.kind == "unavailable"


def test_less_workspace_is_tried_and_told(builder: Any, fake: Any, tmp_path: Path) -> None:
    trt = fake("10.3.0")
    trt.world.build_errors = ["Error Code 2: OutOfMemory (Requested size was 9)", "Cuda Runtime (out of memory)"]
    trt.world.warnings = ("a layer is slow",)
    _, facts = builder.build(network(tmp_path / "m.onnx"), SPEC, trt)
    assert [size >> 20 for _, size in calls(trt, "set_memory_pool_limit")] == [256, 128, 64]
    assert facts["workspace_mib"] == 64
    assert [text for text in facts["warnings"] if "out of memory" in text] == [
        "out of memory with a workspace of 256 MiB: tried with 128",
        "out of memory with a workspace of 128 MiB: tried with 64",
    ]
    assert facts["warnings"].count("a layer is slow") == 1
    assert facts["flags"] == ["STRONGLY_TYPED"]


def test_memory_that_never_suffices_is_an_error(builder: Any, fake: Any, tmp_path: Path) -> None:
    trt = fake("10.3.0")
    trt.world.build_errors = ["out of memory"] * 9
    with pytest.raises(builder.BuildError, match=r"out of memory.*smaller workspace"):
        builder.build(network(tmp_path / "m.onnx"), SPEC, trt)
    assert len(calls(trt, "build_serialized_network")) == 3


def test_another_failure_is_not_tried_again(builder: Any, fake: Any, tmp_path: Path) -> None:
    trt = fake("10.3.0")
    trt.world.build_errors = ["Could not find any implementation for node conv."] * 2
    with pytest.raises(builder.BuildError, match=r"Could not find any implementation"):
        builder.build(network(tmp_path / "m.onnx"), SPEC, trt)
    assert len(calls(trt, "build_serialized_network")) == 1


@pytest.mark.parametrize(
    ("asked", "free", "unified", "given"),
    [
        (4096, 30000, False, 4096),  # a GPU's own memory: as asked
        (4096, 30000, True, 1024),  # shared: at most 1 GiB
        (4096, 1500, True, 500),  # and a third of what is free
        (100, 1500, True, 100),
        (None, 30000, False, 1024),
        (1024, 90, True, 64),
        (1024, None, True, 1024),
    ],
)
def test_workspace_on_shared_memory_is_bounded_and_told(
    builder: Any, asked: int | None, free: int | None, unified: bool, given: int
) -> None:
    found, words = builder.workspace(asked, free, unified)
    assert found == given
    assert bool(words) == (given != (asked or 1024))
