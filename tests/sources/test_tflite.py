"""The tflite source: float and quantized files are read as data, run once, and refused by what is wrong with them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from toolkit.errors import InputError, UnsupportedError
from toolkit.sources.tflite import TFLite


def test_signature_is_the_files_own(digits_files: dict[str, Path]) -> None:
    model = TFLite().load(digits_files["tflite"])
    assert (model.kind, model.graph, model.quant.scheme) == ("tflite", digits_files["tflite"], "float32")
    (image,), (classes,) = model.signature.inputs, model.signature.outputs
    assert (image.name, image.shape, image.dtype, image.layout) == ("image", (1, 8, 8, 1), "float32", "NHWC")
    assert (classes.name, classes.shape, classes.meaning) == ("classes", (1, 10), "softmax")


def test_input_shape_must_be_the_files(digits_files: dict[str, Path]) -> None:
    assert TFLite(input_shape=(8, 8)).load(digits_files["tflite"]).signature.inputs[0].shape == (1, 8, 8, 1)
    with pytest.raises(InputError, match=r"is 8x8, and model\.input_shape asks for 9x9"):
        TFLite(input_shape=(9, 9)).load(digits_files["tflite"])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"PK\x03\x04" + bytes(40), "a zip archive"),
        (b"\x08\x08\x12\x07pytorch" + bytes(9), "damaged or not a .tflite file"),
        (b"\x1c\x00\x00\x00TFL3" + b"\xff" * 60, "damaged"),
    ],
)
def test_what_is_no_tflite_file_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "net.tflite").write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        TFLite().load(tmp_path / "net.tflite")
    assert "\n" not in str(caught.value)


def test_truncated_file_is_refused_wherever_it_is_cut(tmp_path: Path, digits_files: dict[str, Path]) -> None:
    whole = digits_files["tflite"].read_bytes()
    path = tmp_path / "cut.tflite"
    for length in range(9, len(whole) - 16, len(whole) // 40):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            TFLite().load(path)


def test_custom_operator_is_refused_by_name(tmp_path: Path, digits_files: dict[str, Path]) -> None:
    from ai_edge_litert import schema_py_generated as schema
    from flatbuffers import Builder

    model = schema.ModelT.InitFromPackedBuf(digits_files["tflite"].read_bytes(), 0)
    model.operatorCodes[0].builtinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[0].deprecatedBuiltinCode = schema.BuiltinOperator.CUSTOM
    model.operatorCodes[0].customCode = b"FlexPyFunc"
    builder = Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    (tmp_path / "net.tflite").write_bytes(bytes(builder.Output()))
    with pytest.raises(UnsupportedError, match="operator FlexPyFunc is not built into TFLite"):
        TFLite().load(tmp_path / "net.tflite")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "shape"), [("vww_96_int8", (1, 96, 96, 3)), ("pretrainedResnet_quant", (1, 32, 32, 3))]
)
def test_published_int8_file_is_read_as_quantized(name: str, shape: tuple[int, ...]) -> None:
    folder = os.environ.get("EDGEKIT_DATA")
    if not folder:
        pytest.skip("EDGEKIT_DATA names no folder")
    model = TFLite().load(Path(folder) / "models" / "legacy" / f"{name}.tflite")
    assert (model.quant.scheme, model.quant.io, model.signature.inputs[0].shape) == ("int8", "int8", shape)
    assert model.head == "softmax"
