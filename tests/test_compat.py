"""What a runtime's version reads, held against the runtimes that are installed here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from toolkit import compat, tflite_versions
from toolkit.core import QuantSpec, Scheme
from toolkit.devices import DeviceRuntime, load_device
from toolkit.errors import InputError, UnsupportedError
from toolkit.exporters.onnx import ONNX
from toolkit.exporters.tflite import TFLite


def runtime(use: str, version: str = "", format: str = "tflite") -> DeviceRuntime:
    return DeviceRuntime(use=use, formats=(format,), schemes=("float32", "int8"), version=version)


def tflite(path: Path, *codes: tuple[str, int], types: tuple[str, ...] = (), scales: int = 1) -> Path:
    """A file that names these operators of these versions; with types one operator of the first, with such operands."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model, graph = schema.ModelT(), schema.SubGraphT()
    model.version, model.subgraphs, model.buffers = 3, [graph], [schema.BufferT()]
    model.operatorCodes = []
    for name, version in codes:
        code = schema.OperatorCodeT()
        number = getattr(schema.BuiltinOperator, name, schema.BuiltinOperator.CUSTOM)
        code.customCode = None if hasattr(schema.BuiltinOperator, name) else name.encode()
        code.builtinCode, code.deprecatedBuiltinCode, code.version = number, min(number, 127), version
        model.operatorCodes.append(code)
    graph.tensors, graph.operators, graph.inputs, graph.outputs = [], [], [0], [0]
    for kind in types or ("FLOAT32",):
        tensor = schema.TensorT()
        tensor.shape, tensor.type, tensor.buffer, tensor.name = [1], getattr(schema.TensorType, kind), 0, b"t"
        if types:
            tensor.quantization = schema.QuantizationParametersT()
            tensor.quantization.scale = [0.5] * scales
        graph.tensors.append(tensor)
    if types:
        operator = schema.OperatorT()
        operator.opcodeIndex, operator.inputs, operator.outputs = 0, list(range(len(types))), [0]
        graph.operators.append(operator)
    builder = flatbuffers.Builder(256)
    builder.Finish(model.Pack(builder), b"TFL3")
    path.write_bytes(bytes(builder.Output()))
    return path


def onnx_file(path: Path, opset: int, ir: int) -> Path:
    from onnx import TensorProto, helper

    ends = [[helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])] for name in "xy"]
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", *ends)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir
    path.write_bytes(model.SerializeToString())
    return path


# ---------------------------------------------------------------- tables


def test_conv_2d_rose_as_tensorflow_lists_it() -> None:
    """tensorflow/lite/tools/versioning/runtime_version.cc: version 6 came with 2.9."""
    assert tflite_versions.history("CONV_2D") == {5: "2.7", 6: "2.9", 7: "2.12", 8: "litert-1.0"}
    assert [tflite_versions.highest("CONV_2D", release) for release in ("2.7", "2.8", "2.9", "2.14")] == [5, 5, 6, 7]
    assert tflite_versions.first("FULLY_CONNECTED", 12) == "litert-1.0"
    assert tflite_versions.history("NO_SUCH") == {}


def test_versions_of_every_operator_rise_with_the_releases() -> None:
    for line in tflite_versions.TABLE.splitlines():
        if line:
            rises = list(tflite_versions.history(line.split()[0]).items())
            places = [tflite_versions.RELEASES.index(release) for _, release in rises]
            assert rises == sorted(rises), line
            assert places == sorted(set(places)), line


@pytest.mark.parametrize(
    ("use", "version", "release"),
    [
        ("tflite-runtime", "2.14.0", "2.14"),
        ("tflite-runtime", "2.5.0", "2.7"),  # older than all that were asked: what 2.7 does not read it does not
        ("tflite-runtime", "2.20.0", None),
        ("litert", "1.0.1", "litert-1.0"),
        ("litert", "2.3.0", "litert-2.3"),
        ("litert", "3.0", None),
        ("litert", "", None),
        ("onnxruntime", "1.20", None),
    ],
)
def test_release_whose_answers_hold(use: str, version: str, release: str | None) -> None:
    assert compat.tflite_release(use, version) == release


@pytest.mark.parametrize("operator", ["CONV_2D", "FULLY_CONNECTED", "DEPTHWISE_CONV_2D", "ADD", "QUANTIZE", "SOFTMAX"])
def test_litert_here_reads_just_what_the_table_says(operator: str, tmp_path: Path) -> None:
    """Independent: the interpreter itself loads or refuses."""
    from importlib.metadata import version

    from ai_edge_litert.interpreter import Interpreter

    installed = version("ai-edge-litert")
    release = compat.tflite_release("litert", installed)
    if release is None:
        pytest.skip(f"ai-edge-litert {installed} is newer than the table")
    highest = tflite_versions.highest(operator, release)
    good = tflite(tmp_path / "good.tflite", (operator, highest))
    bad = tflite(tmp_path / "bad.tflite", (operator, highest + 1))
    Interpreter(str(good))
    with pytest.raises(ValueError, match=f"'{operator}' version '{highest + 1}'"):
        Interpreter(str(bad))
    assert compat.refusals(good, runtime("litert", installed)) == ()
    assert len(compat.refusals(bad, runtime("litert", installed))) == 1


def test_onnx_runtime_here_reads_just_what_the_table_says(tmp_path: Path) -> None:
    import onnxruntime

    number = tuple(map(int, onnxruntime.__version__.split(".")[:2]))
    if number > compat.ASKED:
        pytest.skip(f"onnxruntime {onnxruntime.__version__} is newer than the table")
    _, ir, opset = [row for row in compat.ONNX if row[0] <= number][-1]
    here = runtime("onnxruntime", onnxruntime.__version__, "onnx")
    for name, given, good in (("a", (opset, ir), True), ("b", (opset + 1, ir), False), ("c", (opset, ir + 1), False)):
        path = onnx_file(tmp_path / f"{name}.onnx", *given)
        assert (compat.refusals(path, here) == ()) == good
        if good:
            onnxruntime.InferenceSession(str(path))
        else:
            with pytest.raises(Exception, match="ONNXRuntimeError"):
                onnxruntime.InferenceSession(str(path))


# ---------------------------------------------------------------- files


def test_dense_layer_of_a_dynamic_file_is_too_new_for_tflite_runtime(tmp_path: Path) -> None:
    path = tflite(tmp_path / "a.tflite", ("CONV_2D", 5), ("FULLY_CONNECTED", 12))
    (line,) = compat.refusals(path, runtime("tflite-runtime", "2.14.0"))
    assert line == (
        "tflite-runtime 2.14.0 reads FULLY_CONNECTED up to version 10, this file asks for version 12 "
        "(read from ai-edge-litert 1.0 on)"
    )
    assert compat.refusals(path, runtime("litert", "1.0.1")) == ()
    assert compat.refusals(path, runtime("tflite-runtime", "")) == ()
    assert len(compat.refusals(path, runtime("litert", "1.0.1"), "1.0.1")) == 0


@pytest.mark.parametrize(
    ("operator", "types", "scales", "asked"),
    [
        ("DEQUANTIZE", ("INT4",), 1, 6),
        ("DEQUANTIZE", ("INT4",), 8, 6),
        ("DEQUANTIZE", ("INT8",), 8, 1),
        ("CONV_2D", ("INT8", "INT4", "INT32"), 4, 7),
        ("FULLY_CONNECTED", ("FLOAT32", "INT8"), 4, 12),
        ("FULLY_CONNECTED", ("FLOAT32", "INT8"), 1, 1),
    ],
)
def test_types_ask_for_more_than_a_quantizer_writes(
    operator: str, types: tuple[str, ...], scales: int, asked: int, tmp_path: Path
) -> None:
    path = tflite(tmp_path / "a.tflite", (operator, 1), types=types, scales=scales)
    assert compat.tflite_operators(path) == {operator: asked}


def test_operators_of_tensorflow_and_of_others(tmp_path: Path) -> None:
    path = tflite(tmp_path / "a.tflite", ("FlexErf", 1), ("SomebodysOwn", 1))
    assert compat.refusals(path, runtime("litert", "2.3.0")) == (
        "litert has no FlexErf, an operator of TensorFlow's own",
    )


def test_operator_that_came_later_is_named(tmp_path: Path) -> None:
    path = tflite(tmp_path / "a.tflite", ("GELU", 1))
    (line,) = compat.refusals(path, runtime("tflite-runtime", "2.7.0"))
    assert line == (
        "tflite-runtime 2.7.0 reads no GELU, this file asks for version 1 (read from tflite-runtime 2.8 on)"
    )


@pytest.mark.parametrize(
    ("version", "opset", "ir", "words"),
    [
        ("1.12.1", 18, 8, "reads operator sets up to 17, this file has 18: set opset = 17"),
        ("1.14.1", 18, 8, ""),
        ("1.14.1", 17, 9, "reads IR versions up to 8, this file has 9"),
        ("1.5.0", 16, 8, "reads operator sets up to 15, this file has 16: set opset = 15"),
        ("99.0", 99, 99, ""),
        ("", 99, 99, ""),
    ],
)
def test_onnx_file_against_onnx_runtime(version: str, opset: int, ir: int, words: str, tmp_path: Path) -> None:
    path = onnx_file(tmp_path / "a.onnx", opset, ir)
    found = compat.refusals(path, runtime("onnxruntime", version, "onnx"))
    assert found == ((f"onnxruntime {version} {words}",) if words else ())


def test_require_read_says_what_to_do(tmp_path: Path) -> None:
    path = tflite(tmp_path / "a.tflite", ("FULLY_CONNECTED", 12))
    compat.require_read(path, "board", "litert", "2.3.0")
    with pytest.raises(UnsupportedError) as error:
        compat.require_read(path, "board", "tflite-runtime", "2.14.0")
    assert str(error.value).startswith("a.tflite: board cannot read it: tflite-runtime 2.14.0 reads FULLY_CONNECTED")
    assert "Fix: install a later tflite-runtime there" in str(error.value)


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
@pytest.mark.parametrize("content", [b"", b"no model at all, but some text", b"\xff" * 200])
def test_file_that_is_none_is_said_to_be_none(suffix: str, content: bytes, tmp_path: Path) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(content)
    use = "litert" if suffix == ".tflite" else "onnxruntime"
    if suffix == ".onnx" and not content:
        assert compat.refusals(path, runtime(use, "1.0")) == ()  # an empty message is one
        return
    with pytest.raises(InputError, match=f"is not a readable {suffix} file"):
        compat.refusals(path, runtime(use, "1.0"))


# ---------------------------------------------------------------- before any work


def expected(component: Any, scheme: Scheme, device: DeviceRuntime) -> list[str]:
    return compat.expected(component, QuantSpec(scheme), [(load_device("raspberry-pi-4"), device)])


def test_plan_knows_what_the_exporter_would_write() -> None:
    old = runtime("tflite-runtime", "2.14.0")
    (note,) = expected(TFLite(), "dynamic", old)
    assert note == (
        "raspberry-pi-4: tflite-runtime 2.14.0 reads FULLY_CONNECTED up to version 10, dynamic files with "
        "FULLY_CONNECTED ask for version 12 (read from ai-edge-litert 1.0 on)"
    )
    assert expected(TFLite(), "int8", old) == []
    whole = QuantSpec("dynamic", granularity="per_tensor")
    assert compat.expected(TFLite(), whole, [(load_device("raspberry-pi-4"), old)]) == []
    assert expected(TFLite(), "dynamic", runtime("litert", "2.3.0")) == []
    (note,) = expected(ONNX(), "int8", runtime("onnxruntime", "1.12.1", "onnx"))
    assert note.endswith("reads operator sets up to 17, this file has 18: set opset = 17")
    assert expected(ONNX(opset=17), "int8", runtime("onnxruntime", "1.12.1", "onnx")) == []


def test_packed_weights_are_not_for_microcontrollers_or_what_cannot_unpack() -> None:
    packed, micro = TFLite(pack_sparse=True), runtime("tflite-micro", "")
    assert expected(packed, "int8", micro) == [
        "raspberry-pi-4: tflite-micro has no kernel that unpacks sparse weights: leave pack_sparse out"
    ]
    assert expected(TFLite(), "int8", micro) == expected(packed, "int8", runtime("litert", "2.3.0")) == []
