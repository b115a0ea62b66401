"""The JSON beside a delivered file: what it says, that it is reproducible, that it is read back and used."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from toolkit.cli import cli
from toolkit.contract import contract_path, dump, make_contract, make_origin, read_contract_file
from toolkit.core import Preprocessing
from toolkit.errors import InputError
from toolkit.inspection import read_artifact


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


def delivered(finished: Any, name: str) -> Any:
    """A delivered file's contract, as JSON."""
    return json.loads((finished.folder / "artifacts" / f"{name}.json").read_text())


@pytest.mark.parametrize("name", ["int8.tflite", "int8.onnx"])
def test_run_writes_a_contract_beside_each_file(finished: Any, name: str) -> None:
    found = delivered(finished, name)
    record = next(record for record in finished.manifest.artifacts if record.name == name)
    assert (found["schema"], found["file"], found["ties"]) == (1, name, "lowest class index")
    assert found["classes"] == list("0123456789")
    assert found["provenance"]["sha256"] == record.sha256
    assert (found["provenance"]["scheme"], found["provenance"]["granularity"]) == ("int8", "per_channel")
    assert found["provenance"]["recipe"] == "small"
    assert {"edgekit", "tensorflow", "keras"} < found["provenance"]["versions"].keys()
    [image], [output] = found["inputs"], found["outputs"]
    layout, shape = ("NHWC", [1, 8, 8, 1]) if name.endswith("tflite") else ("NCHW", [1, 1, 8, 8])
    assert (image["layout"], image["shape"], output["meaning"]) == (layout, shape, "softmax")
    stated = found["preprocessing"]
    assert (stated["size"], stated["color"], stated["scale"], stated["offset"]) == ([8, 8], "gray", [0.0625], [0.0])
    assert (stated["mean"], stated["std"]) == ([0.0], [16.0])  # x * 0.0625 is (x - 0) / 16
    assert (stated["resize"], stated["antialias"], stated["crop"], stated["crop_share"]) == (
        "bilinear",
        True,
        "center",
        1.0,
    )
    assert stated["decoder"]["library"] == "Pillow"
    assert "islow" in stated["decoder"]["jpeg"]


def test_contract_is_a_file_of_its_stage_so_that_resume_restores_it(finished: Any) -> None:
    stage = next(stage for stage in finished.manifest.stages if stage.name == "int8.tflite")
    assert "artifacts/int8.tflite.json" in stage.files


def test_integer_ends_have_the_scale_of_the_file(tmp_path: Path) -> None:
    """An identity of two numbers whose ends are quantized by hand: scale 0.5, zero point -3."""
    file = tmp_path / "q.tflite"
    file.write_bytes(quantized_identity(0.5, -3))
    artifact = read_artifact(file)
    contract = make_contract(artifact, Preprocessing(), ("a", "b"), make_origin(artifact, "r", "per_tensor", {}))
    assert asdict(contract.inputs[0])["quantization"] == {"scale": 0.5, "zero_point": -3}
    assert contract.outputs[0].dtype == "int8"


def quantized_identity(scale: float, zero_point: int) -> bytes:
    """A .tflite file of one RESHAPE from int8 to int8."""
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    steps = schema.QuantizationParametersT(scale=[scale], zeroPoint=[zero_point])
    tensors = [
        schema.TensorT(shape=[1, 2], type=schema.TensorType.INT8, buffer=0, name=name, quantization=steps)
        for name in (b"x", b"y")
    ]
    operator = schema.OperatorT(opcodeIndex=0, inputs=[0], outputs=[1])
    graph = schema.SubGraphT(tensors=tensors, inputs=[0], outputs=[1], operators=[operator])
    code = schema.OperatorCodeT(builtinCode=schema.BuiltinOperator.RESHAPE, version=1)
    code.deprecatedBuiltinCode = schema.BuiltinOperator.RESHAPE
    model = schema.ModelT(version=3, operatorCodes=[code], subgraphs=[graph], buffers=[schema.BufferT()])
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())


def test_contract_is_reproducible_and_read_back_whole(finished: Any) -> None:
    path = finished.folder / "artifacts" / "int8.tflite.json"
    contract = read_contract_file(path)
    assert dump(contract) == path.read_bytes()
    artifact = read_artifact(finished.folder / "artifacts" / "int8.tflite")
    signature = next(r for r in finished.manifest.artifacts if r.name == "int8.tflite").artifact(Path()).signature
    again = make_contract(
        replace(artifact, signature=signature),
        contract.preprocess().resolve(),
        contract.classes,
        make_origin(artifact, "small", "per_channel", finished.manifest.versions),
    )
    assert dump(again) == path.read_bytes()


def test_preprocess_of_a_contract_is_what_was_stated() -> None:
    from toolkit.datasets.preprocess import PreprocessSpec

    wanted = Preprocessing(
        size=(4, 6), resize="bicubic", antialias=False, crop="none", crop_share=0.5, color="bgr", scale=(1.0, 2.0, 0.5)
    )
    wanted = replace(wanted, offset=(-1.0, 0.0, 3.0))
    artifact = fake_artifact()
    contract = make_contract(artifact, wanted, ("a",), make_origin(artifact, "r", "", {}))
    assert isinstance(contract.preprocess(), PreprocessSpec)
    assert contract.preprocess().resolve() == wanted
    assert contract.preprocessing.mean == (1.0, 0.0, -6.0)  # (x - mean) / std = x * scale + offset
    assert contract.preprocessing.std == (1.0, 0.5, 2.0)


def fake_artifact() -> Any:
    from toolkit.core import Artifact, Signature, TensorSpec

    ends = Signature((TensorSpec("x", (1, 4, 6, 3), "float32"),), (TensorSpec("y", (1, 1), "float32"),))
    return Artifact("m.onnx", Path("m.onnx"), "onnx", "float32", 1, "00", ends)


@pytest.mark.parametrize(
    "change, problem",
    [
        (b"", "is not a contract of schema 1"),
        (b"\xff\xfe{", "is not a contract of schema 1"),
        (b"[]", "is not a contract of schema 1"),
        ({"schema": 2}, "schema Input should be 1"),
        ({"classes": None}, "classes"),
        ({"inputs": []}, "inputs"),
        ({"preprocessing": {"crop_share": 0}}, "crop_share Input should be greater than 0"),
        ({"preprocessing": {"resize": "area"}}, "resize"),
        ({"preprocessing": {"scale": [-1.0]}}, "scale"),
    ],
)
def test_what_is_no_contract_is_one_line(tmp_path: Path, finished: Any, change: Any, problem: str) -> None:
    path = tmp_path / "m.tflite.json"
    if not isinstance(change, bytes):
        stated = delivered(finished, "int8.tflite")
        inner = change.get("preprocessing")
        stated |= {"preprocessing": stated["preprocessing"] | inner} if inner else change
        change = json.dumps(stated).encode()
    path.write_bytes(change)
    with pytest.raises(InputError, match=problem) as caught:
        read_contract_file(path)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="cannot be read"):
        read_contract_file(tmp_path / "none.json")


def test_eval_preprocesses_as_the_contract_states(finished: Any) -> None:
    """Without an option the same as with the recipe's; the printed `how` says which."""
    for name in ("int8.tflite", "int8.onnx"):
        file = finished.folder / "artifacts" / name
        told = json.loads(invoke("eval", file, "--data", "digits", "--preprocess", "{scale = 0.0625}", "--json").stdout)
        own = json.loads(invoke("eval", file, "--data", "digits", "--json").stdout)
        assert [m["value"] for m in own["measurements"]] == [m["value"] for m in told["measurements"]]
        assert own["measurements"][0]["how"]["preprocess"] == f"from {name}.json"
        assert told["measurements"][0]["how"]["preprocess"] == "{scale = 0.0625}"
    assert "preprocess from int8.onnx.json" in invoke("eval", file, "--data", "digits").stdout


def test_eval_says_raw_where_no_contract_is(finished: Any, tmp_path: Path) -> None:
    alone = tmp_path / "alone.tflite"
    alone.write_bytes((finished.folder / "artifacts" / "int8.tflite").read_bytes())
    assert "preprocess raw (no contract beside the file)" in invoke("eval", alone, "--data", "digits").stdout


def test_another_files_contract_is_refused(finished: Any, tmp_path: Path) -> None:
    folder, file = finished.folder / "artifacts", tmp_path / "int8.tflite"
    file.write_bytes((folder / "int8.tflite").read_bytes())
    contract_path(file).write_bytes((folder / "original.tflite.json").read_bytes())
    done = invoke("eval", file, "--data", "digits")
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "is the contract of another file" in done.stderr
    assert "is the contract of another file" in invoke("inspect", file).stdout


@pytest.mark.parametrize(
    "own, data, problem",
    [
        ("ab", "ba", "class 0 is 'a' in m.onnx.json, 'b' in the data"),
        ("ab", "abc", "class 2 is none in m.onnx.json, 'c' in the data"),
        ("abc", "bc", "class 0 is 'a' in m.onnx.json, 'b' in the data"),
        ("abc", "ab", ""),  # a sample that does not show the last class
        ("abc", "01", ""),  # numbers for names
        ("abc", "a1c", ""),
        ("012", "10", "class 0 is '0' in m.onnx.json, '1' in the data"),
    ],
)
def test_classes_of_the_data_are_in_the_contracts_order(own: str, data: str, problem: str) -> None:
    from toolkit.core import Records
    from toolkit.measuring import _named

    artifact = fake_artifact()
    contract = make_contract(artifact, Preprocessing(), tuple(own), make_origin(artifact, "r", "", {}))
    classes = tuple(data)
    records = Records("here", ("i",), np.zeros(1, np.int64), ("",), classes, read=lambda i: None, content=lambda i: b"")  # type: ignore[arg-type, return-value]
    if problem:
        with pytest.raises(InputError, match=problem):
            _named(records, contract)
    else:
        assert _named(records, contract).classes == tuple(own)
    with pytest.raises(InputError, match="class 2 is 'c'"):  # a column for each label: none may be missing
        _named(replace(records, task="labels", classes=("a", "b")), replace(contract, classes=("a", "b", "c")))


def test_inspect_prints_the_contract(finished: Any) -> None:
    file = finished.folder / "artifacts" / "int8.tflite"
    text = invoke("inspect", file).stdout
    assert "contract (int8.tflite.json)" in text
    assert "to 8x8 bilinear, antialiased, gray" in text
    assert "x * 0.0625 + 0, x in 0..255" in text
    assert "recipe small, int8 per_channel" in text
    assert json.loads(invoke("inspect", file, "--json").stdout)["contract"] == delivered(finished, "int8.tflite")
