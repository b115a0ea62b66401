"""A file in which one thing was changed is refused by the name of the tensor, whatever tensor it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from tests.exporters.conftest import as_model
from tests.exporters.test_tflite_quantized import branched, with_ranges
from toolkit.core import ExportContext, Model, QuantSpec
from toolkit.engine.freeze import layer_of
from toolkit.engine.prepare import prepare
from toolkit.errors import UnsupportedError
from toolkit.exporters import feeds, tflite_file, tflite_float, tflite_laws, tflite_quantized
from toolkit.exporters.tflite_held import hold

Images = Callable[..., Any]
INTEGERS = {"INT8": np.int8, "INT32": np.int32, "INT64": np.int64, "INT16": np.int16}


@dataclass(frozen=True)
class Written:
    """A quantized file and all it is held against."""

    made: tflite_quantized.Quantized
    model: Model

    def parse(self) -> Any:
        return tflite_file.parse(self.made.content)

    def hold(self, changed: Any) -> None:
        file = tflite_file.load(tflite_file.pack(changed))
        hold(file, self.made.held, lambda name: layer_of(name, self.model.graph))

    def names_what_is_wrong(self, changed: Any, tensor: Any, layer: str = "") -> None:
        with pytest.raises(UnsupportedError) as caught:
            self.hold(changed)
        assert f"tensor `{tflite_file.text(tensor.name)}`" in str(caught.value)
        assert str(caught.value).startswith(layer)


@pytest.fixture(scope="module", params=["int8", "int16x8", "mixed", "weight_int8"])
def written(request: pytest.FixtureRequest, images: Images) -> Written:
    plain = as_model(branched())
    quant = {
        "int8": QuantSpec("int8"),
        "int16x8": QuantSpec("int16x8", io="int16"),
        "mixed": QuantSpec("int8", io="uint8", layers=(("shortcut", "float32"), ("gate", "int16x8"))),
        "weight_int8": QuantSpec("weight_int8", granularity="per_tensor"),
    }[request.param]
    model = replace(with_ranges(plain, images(plain)), graph=prepare(plain.graph).graph, quant=quant)
    context, inputs = ExportContext(images(plain)), feeds.fixed_inputs(model, None, "tflite")
    content = tflite_float.convert(replace(model, quant=QuantSpec()), inputs, context, pixels=False)
    plan = tflite_quantized.plan(content, model, inputs, context)
    return Written(tflite_quantized.quantize(plan, model, inputs, context, pixels=False), model)


@pytest.fixture(scope="module")
def int8(images: Images) -> Written:
    plain = as_model(branched())
    model = replace(with_ranges(plain, images(plain)), graph=prepare(plain.graph).graph, quant=QuantSpec("int8"))
    context, inputs = ExportContext(images(plain)), feeds.fixed_inputs(model, None, "tflite")
    content = tflite_float.convert(replace(model, quant=QuantSpec()), inputs, context, pixels=False)
    plan = tflite_quantized.plan(content, model, inputs, context)
    return Written(tflite_quantized.quantize(plan, model, inputs, context, pixels=False), model)


def scaled(model: Any) -> Iterator[Any]:
    return (t for t in model.subgraphs[0].tensors if t.quantization is not None and t.quantization.scale is not None)


def constants(model: Any, *types: str) -> Iterator[tuple[Any, Any, type]]:
    """(tensor, its buffer, its numpy type) of quantized constants of these types."""
    schema = tflite_file.generated()
    for tensor in scaled(model):
        kind = next((name for name in types if getattr(schema.TensorType, name) == tensor.type), None)
        buffer = model.buffers[tensor.buffer]
        if kind and buffer.data is not None and len(buffer.data):
            yield tensor, buffer, INTEGERS[kind]


def test_untouched_file_is_held(written: Written) -> None:
    written.hold(written.parse())


def test_one_scale_off_by_a_hundredth_is_named(written: Written) -> None:
    count = sum(1 for _ in scaled(written.parse()))
    assert count >= 7
    for index in range(count):
        model = written.parse()
        tensor = list(scaled(model))[index]
        scales = np.array(tensor.quantization.scale)
        scales[-1] *= 1.01
        tensor.quantization.scale = scales
        with pytest.raises(UnsupportedError) as caught:
            written.hold(model)
        assert f"`{tflite_file.text(tensor.name)}`" in str(caught.value)


def test_one_integer_of_a_weight_or_bias_is_named(written: Written) -> None:
    def all_of(model: Any) -> list[tuple[Any, Any, type]]:
        return list(constants(model, "INT8", "INT32", "INT64"))

    for index in range(len(all_of(written.parse()))):
        model = written.parse()
        tensor, buffer, kind = all_of(model)[index]
        values = np.array(buffer.data, np.uint8).view(kind).copy()
        off = 2 + abs(int(values[-1])) // 500_000  # a bias of many steps is rounded to float32 on the way
        values[-1] += off if values[-1] < 100 else -off
        buffer.data = values.view(np.uint8)
        written.names_what_is_wrong(model, tensor)


def test_one_zero_point_is_named(int8: Written) -> None:
    for index in range(sum(1 for _ in scaled(int8.parse()))):
        model = int8.parse()
        tensor = list(scaled(model))[index]
        zeros = np.array(tensor.quantization.zeroPoint)
        zeros[0] += 2 if zeros[0] < 100 else -2
        tensor.quantization.zeroPoint = zeros
        int8.names_what_is_wrong(model, tensor)


def test_one_data_type_is_named(int8: Written) -> None:
    kinds = tflite_file.generated().TensorType
    for index in range(sum(1 for _ in scaled(int8.parse()))):
        model = int8.parse()
        tensor = list(scaled(model))[index]
        tensor.type = kinds.UINT8 if tensor.type == kinds.INT8 else kinds.FLOAT32
        int8.names_what_is_wrong(model, tensor)


def test_the_layer_is_named_too(int8: Written) -> None:
    for layer, place, change in (("shortcut", 1, "scale"), ("classes", 2, "scale"), ("stem", 1, "zeroPoint")):
        model = int8.parse()
        graph = model.subgraphs[0]
        names = [tflite_file.text(graph.tensors[int(op.outputs[0])].name) for op in graph.operators]
        kinds = [len(op.inputs) == 3 for op in graph.operators]
        found = [i for i, name in enumerate(names) if kinds[i] and layer_of(name, int8.model.graph) == layer]
        tensor = graph.tensors[int(graph.operators[found[0]].inputs[place])]
        setattr(tensor.quantization, change, np.array(getattr(tensor.quantization, change)) + 1)
        int8.names_what_is_wrong(model, tensor, f"{layer}: ")


def test_change_of_type_that_nothing_asked_for_is_named(int8: Written) -> None:
    """The input of the last operator but one is dequantized and quantized again."""
    schema = tflite_file.generated()
    model = int8.parse()
    graph = model.subgraphs[0]
    codes = {max(code.builtinCode, code.deprecatedBuiltinCode): i for i, code in enumerate(model.operatorCodes)}
    target = graph.operators[-2]
    source = graph.tensors[int(target.inputs[0])]
    there = schema.TensorT(shape=source.shape, type=schema.TensorType.FLOAT32, buffer=0, name=b"there")
    back = schema.TensorT(
        shape=source.shape, type=source.type, buffer=0, name=b"back", quantization=source.quantization
    )
    graph.tensors += [there, back]
    numbers = [int(target.inputs[0]), len(graph.tensors) - 2, len(graph.tensors) - 1]
    made = [
        schema.OperatorT(
            opcodeIndex=codes[getattr(schema.BuiltinOperator, kind)], inputs=[numbers[i]], outputs=[numbers[i + 1]]
        )
        for i, kind in enumerate(("DEQUANTIZE", "QUANTIZE"))
    ]
    target.inputs = [numbers[-1], *map(int, target.inputs[1:])]
    graph.operators[-2:-2] = made
    int8.names_what_is_wrong(model, back)


def test_operator_that_was_swapped_is_named(int8: Written) -> None:
    model = int8.parse()
    first, second = [op for op in model.subgraphs[0].operators if len(op.inputs) == 2][:2]
    first.inputs, second.inputs = second.inputs, first.inputs
    with pytest.raises(UnsupportedError, match="tensor `"):
        int8.hold(model)


def test_rules_of_a_file_alone_name_bias_pool_and_softmax(int8: Written) -> None:
    """What the converter writes is checked without a float file beside it."""

    def broken(kind: str, place: int, *, output: bool = False) -> str:
        model = int8.parse()
        graph = model.subgraphs[0]
        number = getattr(tflite_file.generated().BuiltinOperator, kind)
        codes = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in model.operatorCodes]
        operator = next(op for op in graph.operators if codes[op.opcodeIndex] == number)
        tensor = graph.tensors[int((operator.outputs if output else operator.inputs)[place])]
        tensor.quantization.scale = np.array(tensor.quantization.scale) * 1.01
        with pytest.raises(UnsupportedError) as caught:
            tflite_laws.require(tflite_file.load(tflite_file.pack(model)), lambda name: None)
        assert tflite_file.text(tensor.name) in str(caught.value)
        return str(caught.value)

    assert "input scale * weight scale" in broken("CONV_2D", 2)
    assert "MAX_POOL_2D changes none" in broken("MAX_POOL_2D", 0, output=True)
    assert "SOFTMAX prescribes" in broken("SOFTMAX", 0, output=True)
    tflite_laws.require(tflite_file.load(int8.made.content), lambda name: None)
