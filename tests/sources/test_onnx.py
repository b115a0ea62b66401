"""The onnx source: reads what a file says of itself as data, runs it once, and refuses by name what it cannot take."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from toolkit.core import Model
from toolkit.errors import InputError, UnsupportedError
from toolkit.sources import store
from toolkit.sources.onnx import ONNX

WEIGHTS = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)


def graph(shape: tuple[Any, ...] = ("batch", 3, 8, 8), dtype: int = TensorProto.FLOAT, last: str = "Softmax") -> Any:
    """Convolution, global average, and one more operator: 4 classes."""
    nodes = [
        helper.make_node("Conv", ["photo", "kernel"], ["mapped"], "conv"),
        helper.make_node("GlobalAveragePool", ["mapped"], ["pooled"], "pool"),
        helper.make_node("Flatten", ["pooled"], ["flat"], "flat"),
        helper.make_node(last, ["flat"], ["scores"], "last"),
    ]
    ends = [
        helper.make_tensor_value_info("photo", dtype, shape),
        helper.make_tensor_value_info("scores", TensorProto.FLOAT, None),
    ]
    kernel = numpy_helper.from_array(WEIGHTS, "kernel")
    return helper.make_graph(nodes, "net", ends[:1], ends[1:], [kernel])


def saved(path: Path, made: Any = None, **how: Any) -> Path:
    proto = helper.make_model(made or graph(), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(proto, str(path), **how)
    return path


def test_signature_is_the_files_own(tmp_path: Path) -> None:
    model = ONNX().load(saved(tmp_path / "net.onnx"))
    assert (model.kind, model.graph, model.quant.scheme) == ("onnx", tmp_path / "net.onnx", "float32")
    (photo,), (scores,) = model.signature.inputs, model.signature.outputs
    assert (photo.name, photo.shape, photo.layout, photo.meaning) == ("photo", (None, 3, 8, 8), "NCHW", "image")
    assert (scores.name, scores.shape, scores.meaning) == ("scores", (None, 4), "softmax")


@pytest.mark.parametrize(("last", "head"), [("Softmax", "softmax"), ("Sigmoid", "sigmoids"), ("Relu", "logits")])
def test_head_is_the_last_operators(tmp_path: Path, last: str, head: str) -> None:
    assert ONNX().load(saved(tmp_path / "net.onnx", graph(last=last))).head == head


def test_head_is_what_the_recipe_says(tmp_path: Path) -> None:
    assert ONNX(head="embedding").load(saved(tmp_path / "net.onnx")).head == "embedding"


def test_layout_that_cannot_be_told_is_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", graph((1, 3, 8, 3)))
    with pytest.raises(InputError, match=r"model\.layout"):
        ONNX().load(path)
    assert ONNX(layout="NCHW").load(path).signature.inputs[0].layout == "NCHW"


def test_open_height_needs_an_input_shape(tmp_path: Path) -> None:
    path = saved(tmp_path / "net.onnx", graph((1, 3, "h", "w")))
    with pytest.raises(InputError, match=r"model\.input_shape"):
        ONNX().load(path)
    assert ONNX(input_shape=(8, 6)).load(path).signature.inputs[0].shape == (1, 3, 8, 6)
    with pytest.raises(InputError, match="asks for 9x9"):
        ONNX(input_shape=(9, 9)).load(saved(tmp_path / "fixed.onnx"))


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (graph((4, 3, 8, 8)), "batch of 1"),
        (graph(dtype=TensorProto.UINT8, last="Relu"), "is uint8"),
    ],
)
def test_input_of_another_batch_or_type_is_refused(tmp_path: Path, made: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        ONNX().load(saved(tmp_path / "net.onnx", made))


def test_operator_of_another_domain_is_refused_by_name_at_any_depth(tmp_path: Path) -> None:
    foreign = helper.make_node("Fetch", ["x"], ["y"], "fetch", domain="com.somebody")
    branch = helper.make_graph([foreign], "b", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])])
    made = graph()
    made.node.append(helper.make_node("If", ["c"], ["z"], "choice", then_branch=branch, else_branch=branch))
    with pytest.raises(UnsupportedError, match=r"com\.somebody::Fetch \(fetch\)"):
        ONNX().load(saved(tmp_path / "net.onnx", made))


def test_weights_beside_the_file_are_read_and_rest_inside_it(tmp_path: Path) -> None:
    how = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    (tmp_path / "a").mkdir()
    model = ONNX().load(saved(tmp_path / "a" / "net.onnx", **how))
    rested = store.save(model, tmp_path / "original.model.onnx")
    (tmp_path / "a" / "weights.bin").unlink()
    alone = onnx.load(str(rested.graph))
    np.testing.assert_array_equal(numpy_helper.to_array(alone.graph.initializer[0]), WEIGHTS)
    assert ONNX().load(rested.graph).signature == model.signature


@pytest.mark.parametrize("place", ["../secret.bin", "/etc/passwd", "a/../../secret.bin", "..\\secret.bin"])
def test_weights_outside_the_folder_are_refused_unread(tmp_path: Path, place: str) -> None:
    (tmp_path / "secret.bin").write_bytes(WEIGHTS.tobytes())
    (tmp_path / "in").mkdir()
    made = graph()
    kernel = made.initializer[0]
    kernel.ClearField("raw_data")
    kernel.data_location = TensorProto.EXTERNAL
    kernel.external_data.add(key="location", value=place)
    path = tmp_path / "in" / "net.onnx"
    path.write_bytes(helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())
    with pytest.raises(InputError, match="outside the model's folder"):
        ONNX().load(path)


def test_link_to_weights_outside_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    how = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    path = saved(tmp_path / "in" / "net.onnx", **how)
    (tmp_path / "in" / "weights.bin").rename(tmp_path / "weights.bin")
    (tmp_path / "in" / "weights.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(InputError, match="outside the model's folder"):
        ONNX().load(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\x1c\x00\x00\x00TFL3" + bytes(40), "is a .tflite file"),
        (b"PK\x03\x04" + bytes(40), "a zip archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "an HDF5 file"),
        (b"no model at all, but text", "damaged or not an .onnx file"),
        (b"\x08\x08", "holds no ONNX graph"),
    ],
)
def test_what_is_no_onnx_file_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        ONNX().load(tmp_path / "net.onnx")
    assert "\n" not in str(caught.value)


def test_truncated_file_is_refused_wherever_it_is_cut(tmp_path: Path) -> None:
    whole = saved(tmp_path / "whole.onnx").read_bytes()
    path = tmp_path / "cut.onnx"
    for length in range(1, len(whole), 37):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError):
            ONNX().load(path)


def test_quantized_file_says_so(tmp_path: Path) -> None:
    made = graph(last="Relu")
    made.initializer.append(numpy_helper.from_array(np.float32(0.1), "scale"))
    made.initializer.append(numpy_helper.from_array(np.uint8(0), "zero"))
    made.node[0].input[0] = "photo_q"
    steps = [
        helper.make_node("QuantizeLinear", ["photo", "scale", "zero"], ["q"], "q"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["photo_q"], "dq"),
    ]
    nodes = [*steps, *made.node]
    del made.node[:]
    made.node.extend(nodes)
    model: Model = ONNX().load(saved(tmp_path / "net.onnx", made))
    assert model.quant.scheme == "int8"


def test_answer_that_is_no_number_is_refused(tmp_path: Path) -> None:
    made = graph(last="Relu")
    made.initializer[0].CopyFrom(numpy_helper.from_array(np.full_like(WEIGHTS, np.inf), "kernel"))
    with pytest.raises(InputError, match="'scores' is NaN or infinite"):
        ONNX().load(saved(tmp_path / "net.onnx", made))
