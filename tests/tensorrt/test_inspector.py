"""Layers and their types, from the forms in which TensorRT tells them. The JSON here is synthetic, in those forms."""

from __future__ import annotations

import json
from typing import Any

import pytest

from toolkit.errors import InputError
from toolkit.tensorrt.inspector import convolutions, layers, logged_layers, precision, reformats
from toolkit.worker.trt_layers import sparse_words, words

INT8 = "Thirty-two wide channel vectorized row major Int8 format"
HALF = "Channel major FP16 format where channel % 8 == 0"
FLOAT = "Row major linear FP32"


def tensor(kind: str, *, key: str = "Format/Datatype") -> dict[str, Any]:
    return {"Name": "t", "Dimensions": [1, 16, 8, 8], key: kind}


def layer(name: str, kind: str, inputs: list[Any], outputs: list[Any], **more: Any) -> dict[str, Any]:
    return {"Name": name, "LayerType": kind, "Inputs": inputs, "Outputs": outputs, **more}


TEN = {
    "Layers": [
        layer("quantize", "Reformat", [tensor(FLOAT)], [tensor(INT8)]),
        layer("conv1", "CaskConvolution", [tensor(INT8)], [tensor(INT8)], ParameterType="Convolution"),
        layer("conv2", "CaskConvolution", [tensor(INT8), tensor(HALF)], [tensor(HALF)], ParameterType="Convolution"),
        layer("conv3", "CaskJit", [tensor(HALF)], [tensor(HALF)], ParameterType="Convolution"),
        layer("softmax", "SoftMaxV2", [tensor(FLOAT)], [tensor(FLOAT)]),
        layer("shape", "Shuffle", [tensor("Row major linear INT32")], [tensor("Row major linear INT32")]),
    ],
    "Bindings": ["x", "y"],
}
ELEVEN = {
    "Layers": [
        layer("conv", "correlation", [tensor("Int8", key="Datatype")], [tensor("Half", key="Datatype")]),
        layer("scale", "kgen", [tensor("BFloat16", key="Datatype")], [tensor("Float", key="Datatype")]),
    ],
    "I/O Tensors": [{"Name": "x", "IOMode": "Input", "DataType": "Float"}],
}
# the words of tensorrt_rtx 1.7.1, made shorter
LOG = """Layers:
Name: a, b, LayerType: kgen, Inputs: [ { Name: x, Dimensions: [1,16], Datatype: Float, Format: (Linear) }], \
Constants: [ { Name: c, Dimensions: [1], Datatype: Int8, Format: (Linear) }], \
Outputs: [ { Name: q, Dimensions: [1,16], Datatype: Int8, Format: (NHWC) }], TacticName: t, Metadata: [ONNX Layer: q]
Name: conv, LayerType: correlation, Inputs: [ { Name: q, Dimensions: [1,16], Datatype: Int8, Format: (NHWC) }, \
{ Name: r, Dimensions: [1,16], Datatype: Half, Format: (NHWC) }], Constants: [], \
Outputs: [ { Name: y, Dimensions: [1,16], Datatype: Half, Format: (Linear) }], TacticName: t, StreamId: 0
"""


def test_layers_count_under_the_narrowest_type_they_read() -> None:
    assert precision(layers(json.dumps(TEN))) == {"int8": 2, "float16": 1, "float32": 1, "int32": 1}


def test_layers_of_tensorrt_11_are_read_too() -> None:
    found = layers(json.dumps(ELEVEN))
    assert found[0].inputs == ("int8",)
    assert found[0].outputs == ("float16",)
    assert precision(found) == {"bfloat16": 1, "int8": 1}


def test_convolutions_are_known_by_either_name() -> None:
    assert convolutions(layers(json.dumps(TEN))) == {"int8": 2, "float16": 1}
    assert convolutions(layers(json.dumps(ELEVEN))) == {"int8": 1}


def test_reformats_are_named_and_count_as_no_computation() -> None:
    assert reformats(layers(json.dumps(TEN))) == ("quantize",)


def test_engine_of_names_alone_tells_no_types() -> None:
    found = layers('{"Layers": ["conv + relu", "pool"], "Bindings": []}')
    assert [item.name for item in found] == ["conv + relu", "pool"]
    assert precision(found) == {}
    assert words(list(found)) == "2 layers, whose types the engine does not tell"


def test_words_name_the_commonest_type_first() -> None:
    assert words(list(layers(json.dumps(TEN)))) == "2 of 5 layers int8, 1 float16, 1 float32, 1 int32"


def test_layers_are_read_from_a_build_log() -> None:
    first, second = logged_layers(LOG)
    assert (first.name, first.type, first.inputs, first.outputs) == ("a, b", "kgen", ("float32",), ("int8",))
    assert (second.inputs, second.outputs) == (("int8", "float16"), ("float16",))
    assert convolutions((first, second)) == {"int8": 1}
    assert logged_layers("nothing of the kind") == ()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"Layers": 3}', '{"Layers": [3]}', '{"Layers": [{}]}'])
def test_other_text_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError, match="layer information: cannot be read") as caught:
        layers(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "log",
    [
        # TensorRT 8 to 10, as trtexec prints it (NVIDIA/TensorRT#4056, #1403)
        "[08/05/2024-12:06:54] [I] [TRT] (Sparsity) Layers eligible for sparse math: Conv_1 + Relu_2, Conv_3, Gemm_4\n"
        "[08/05/2024-12:06:54] [I] [TRT] (Sparsity) TRT inference plan picked sparse implementation for layers: "
        "Conv_1 + Relu_2, Gemm_4\n",
        # the words in TensorRT-RTX 1.7's library
        "(Sparsity) Found 3 layer(s) eligible to use sparse tactics: Conv_1 + Relu_2, Conv_3, Gemm_4\n"
        "(Sparsity) Chose 2 layer(s) using sparse tactics: Conv_1 + Relu_2, Gemm_4\n",
    ],
)
def test_sparse_kernels_are_read_from_either_form_of_the_log(log: str) -> None:
    assert sparse_words(log) == ["2:4: 3 layers could use sparse kernels, 2 do: Conv_1 + Relu_2, Gemm_4"]


def test_log_without_a_word_of_sparsity_says_nothing() -> None:
    assert sparse_words("[I] [TRT] Total Weights Memory: 4\n") == []
    none = "eligible for sparse math: ", "TRT inference plan picked sparse implementation for layers: "
    assert sparse_words("".join(f"(Sparsity) {text}\n" for text in none)) == [
        "2:4: 0 layers could use sparse kernels, 0 do"
    ]
