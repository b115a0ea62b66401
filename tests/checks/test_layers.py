"""Error by layer in delivered files: whole and alone, and which layer is at fault."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from nets import Noise, Written

from toolkit.checks.layers import FAULT_DB, LayerErrors, layer_errors, take_images
from toolkit.core import ExportContext, Model, QuantSpec, Signature, TensorSpec
from toolkit.engine.numeric import sqnr_db
from toolkit.engine.prepare import prepare
from toolkit.errors import InputError, UnsupportedError
from toolkit.exporters import tflite_file
from toolkit.exporters.tflite import TFLite

IMAGES = {"image": Noise().images[:8]}
# an activation held to a quarter of its range, or in steps eight times too wide; weights read twice or half as large
FAULTS = (("output", 0.25), ("weights", 2.0), ("output", 8.0), ("weights", 0.5))
WEIGHTED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
PLACES = 10  # of each network


@pytest.fixture(scope="module")
def found(written: dict[str, Written]) -> dict[str, LayerErrors]:
    return {
        f"{name}{path.suffix}": layer_errors(path, net.graph, IMAGES)
        for name, net in written.items()
        for path in (net.tflite, net.onnx)
    }


@pytest.mark.parametrize("file", ["mobile.tflite", "mobile.onnx", "residual.tflite", "residual.onnx"])
def test_every_layer_with_weights_is_found(
    file: str, found: dict[str, LayerErrors], written: dict[str, Written]
) -> None:
    graph = prepare(written[file.partition(".")[0]].graph).graph
    named = {layer for row in found[file].rows for layer in row.layers}
    assert {layer.name for layer in graph.layers if layer.weights} <= named


def test_tensors_inside_a_layer_are_no_layer(found: dict[str, LayerErrors]) -> None:
    """A Rescaling is written as a product and a sum; only the sum is the layer."""
    (row,) = (row for row in found["residual.tflite"].rows if row.layer == "rescale")
    assert row.operator == "ADD"


def test_last_layers_error_is_that_of_the_files_output(
    found: dict[str, LayerErrors], written: dict[str, Written]
) -> None:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    kernels = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(str(written["residual"].tflite), experimental_op_resolver_type=kernels)
    runner = interpreter.get_signature_runner()
    answers = [next(iter(runner(image=image[None]).values()))[0] for image in IMAGES["image"]]
    expected = sqnr_db(np.asarray(written["residual"].graph(IMAGES["image"])), np.array(answers))
    assert found["residual.tflite"].rows[-1].sqnr_db == pytest.approx(expected, abs=0.01)


def test_own_error_is_less_than_the_error_that_has_built_up(found: dict[str, LayerErrors]) -> None:
    rows = found["mobile.tflite"].rows
    assert all(row.alone_db > row.sqnr_db for row in rows if row.layer.startswith(("b1", "b2")))


def test_own_error_of_a_sound_layer_is_near_what_eight_bits_have(found: dict[str, LayerErrors]) -> None:
    """10 log10(12 signal / step**2); weights and requantizing take a few decibels of it."""
    assert all(row.lost_db < 12 for errors in found.values() for row in errors.rows)


def test_float_file_has_no_error(written: dict[str, Written], tmp_path: Path) -> None:
    graph = written["residual"].graph
    ends = (
        (TensorSpec("image", (None, 16, 16, 3), "float32", "image", "NHWC"),),
        (TensorSpec("head", (None, 10), "float32", "logits"),),
    )
    path = tmp_path / "float.tflite"
    TFLite().export(Model("keras", graph, Signature(*ends)), path, ExportContext())
    assert min(row.sqnr_db for row in layer_errors(path, graph, IMAGES).rows) > 100


def corrupt(path: Path, tensor: int, factor: float, to: Path) -> None:
    """The file with all scales of one tensor multiplied."""
    model = tflite_file.parse(path.read_bytes())
    quantization = model.subgraphs[0].tensors[tensor].quantization
    quantization.scale = [float(scale) * factor for scale in quantization.scale]
    to.write_bytes(tflite_file.pack(model))


def places(path: Path) -> list[tuple[int, int]]:
    """(weights, output) of operators that have a scale of their own."""
    content = path.read_bytes()
    kinds = [operator.kind for operator in tflite_file.read(path).operators]
    operators = tflite_file.parse(content).subgraphs[0].operators
    own = [
        (int(operator.inputs[1]), int(operator.outputs[0]))
        for kind, operator in zip(kinds, operators, strict=True)
        if kind in WEIGHTED
    ]
    return own[:PLACES]


def test_faulty_layer_is_named_in_at_least_18_of_20_places(written: dict[str, Written], tmp_path: Path) -> None:
    named, tried = [], 0
    for net in written.values():
        sound = {row.tensor: row.layers for row in layer_errors(net.tflite, net.graph, IMAGES).rows}
        names = [tflite_file.text(t.name) for t in tflite_file.parse(net.tflite.read_bytes()).subgraphs[0].tensors]
        faults = [(place, FAULTS[i % 4]) for i, place in enumerate(places(net.tflite) * 2)][:PLACES]
        for (weights, output), (what, factor) in faults:
            bad = tmp_path / "bad.tflite"
            corrupt(net.tflite, weights if what == "weights" else output, factor, bad)
            culprit = layer_errors(bad, net.graph, IMAGES).culprit()
            assert culprit is not None
            named.append(culprit.layer in sound[names[output]] and culprit.faulty)
            tried += 1
    assert tried == 20
    assert sum(named) >= 18


def test_faulty_scale_in_an_onnx_file_is_named(written: dict[str, Written], tmp_path: Path) -> None:
    import onnx
    from onnx import numpy_helper

    proto = onnx.load(str(written["residual"].onnx))
    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    convolution = [node for node in proto.graph.node if node.op_type == "Conv"][4]
    reader = next(node for node in proto.graph.node if node.output[0] == convolution.input[1])
    scale = constants[reader.input[1]]
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(2), scale.name))
    onnx.save(proto, str(tmp_path / "bad.onnx"))
    culprit = layer_errors(tmp_path / "bad.onnx", written["residual"].graph, IMAGES).culprit()
    assert culprit is not None
    assert (culprit.layer, culprit.faulty) == ("b1_conv2", True)


def test_saturated_is_the_share_of_float_values_beyond_the_integers(
    written: dict[str, Written], tmp_path: Path
) -> None:
    """The input's own scale cut to a quarter: of normal values of deviation 1 those beyond about 1 are clipped."""
    net, bad = written["mobile"], tmp_path / "bad.tflite"
    first = tflite_file.parse(net.tflite.read_bytes()).subgraphs[0].operators[0]
    corrupt(net.tflite, int(first.outputs[0]), 0.25, bad)
    row = layer_errors(bad, net.graph, IMAGES).rows[0]
    low, high = (end * row.scale for end in (-128.5 - row.zero_point, 127.5 - row.zero_point))
    images = IMAGES["image"]
    assert row.layer == "image"
    assert row.saturated == pytest.approx(np.mean((images < low) | (images > high)))
    assert 0.2 < row.saturated < 0.45


def test_worst_first_orders_by_own_error(found: dict[str, LayerErrors]) -> None:
    own = [row.alone_db for row in found["mobile.onnx"].worst_first()]
    assert own == sorted(own)
    assert math.isfinite(own[0])


def test_another_models_graph_is_refused(written: dict[str, Written]) -> None:
    import keras
    from keras import layers

    image = keras.Input((16, 16, 3), name="image")
    other = keras.Model(image, layers.Dense(3)(layers.Flatten()(layers.MaxPooling2D(16)(image))))
    with pytest.raises(UnsupportedError, match="none of its tensors"):
        layer_errors(written["mobile"].tflite, other, IMAGES)


@pytest.mark.parametrize("name", ["file.tflite", "file.onnx", "file.keras"])
def test_what_is_no_file_of_ours_is_refused(name: str, written: dict[str, Written], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"not a model")
    with pytest.raises(InputError):
        layer_errors(tmp_path / name, written["mobile"].graph, IMAGES)


def test_images_of_another_shape_are_refused(written: dict[str, Written]) -> None:
    with pytest.raises(InputError, match=r"takes \(1, 16, 16, 3\), the images are \(1, 8, 8, 3\)"):
        layer_errors(written["mobile"].tflite, written["mobile"].graph, {"image": IMAGES["image"][:, :8, :8]})


def test_take_images_takes_the_first_of_a_split() -> None:
    taken: Any = take_images(Noise(), 5)
    np.testing.assert_array_equal(taken["image"], Noise().images[:5])


def test_softmax_of_close_decisions_is_no_fault(tmp_path: Path) -> None:
    """Its kernel rounds to 1/256, whatever its values: here 15 dB and more above what theirs would have."""
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3), name="image")
    x = keras.layers.Conv2D(8, 3, strides=2, activation="relu", name="conv")(image)
    x = keras.layers.GlobalAveragePooling2D(name="pool")(x)
    graph = keras.Model(image, keras.layers.Dense(10, activation="softmax", name="head")(x))
    ends = (
        (TensorSpec("image", (None, 16, 16, 3), "float32", "image", "NHWC"),),
        (TensorSpec("head", (None, 10), "float32", "probabilities"),),
    )
    model = Model("keras", graph, Signature(*ends), quant=QuantSpec("int8"))
    TFLite().export(model, tmp_path / "int8.tflite", ExportContext(Noise()))
    found = layer_errors(tmp_path / "int8.tflite", graph, IMAGES)
    (row,) = (row for row in found.rows if row.layer == "head_softmax")
    values = np.asarray(graph(IMAGES["image"]))
    assert (values.max() - values.min()) / 255 < 10 ** (-FAULT_DB / 20) / 256
    assert row.lost_db < 3
    culprit = found.culprit()
    assert culprit is not None
    assert not culprit.faulty
