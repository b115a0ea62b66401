"""The first diverging layer: exactly the one a fault was planted in, of float and int8 files; none on sound ones."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers
from nets import Noise, Written

from toolkit.checks.between import between
from toolkit.checks.divergence import builds_up, first_diverging, sentence
from toolkit.checks.layers import LayerError, layer_errors
from toolkit.core import ExportContext, Model, QuantSpec, Scheme, Signature, TensorSpec
from toolkit.exporters import tflite_file

IMAGES = {"image": Noise().images[:2]}
NETS = ("mobile", "residual")
HELD = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
RELU, NONE, TANH = 1, 0, 4  # of ActivationFunctionType, in TensorFlow Lite's schema
ENDS = (TensorSpec("image", (None, 16, 16, 3), "float32", "image", "NHWC"),)


@dataclass(frozen=True)
class Floats:
    """A graph and its files that compute in floats, by scheme and suffix."""

    graph: Any
    files: dict[tuple[str, str], Path]


@pytest.fixture(scope="module")
def floats(written: dict[str, Written], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Floats]:
    from toolkit.exporters.onnx import ONNX
    from toolkit.exporters.tflite import TFLite

    folder, found = tmp_path_factory.mktemp("floats"), {}
    for name, net in written.items():
        meaning = "softmax" if name == "mobile" else "logits"
        model = Model("keras", net.graph, Signature(ENDS, (TensorSpec("head", (None, 10), "float32", meaning),)))
        files = {}
        for scheme in ("float32", "float16"):
            for exporter, suffix in ((TFLite(), ".tflite"), (ONNX(layout="NCHW"), ".onnx")):
                path = files[scheme, suffix] = folder / f"{name}-{scheme}{suffix}"
                exporter.export(replace(model, quant=QuantSpec(scheme)), path, ExportContext())
        found[name] = Floats(net.graph, files)
    return found


def first(path: Path, graph: Any, scheme: Scheme) -> Any:
    return first_diverging(layer_errors(path, graph, IMAGES).rows, scheme)


# ---------------------------------------------------------------- sound files


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
@pytest.mark.parametrize("name", NETS)
def test_no_layer_of_a_sound_file_diverges(
    name: str, suffix: str, floats: dict[str, Floats], written: dict[str, Written]
) -> None:
    net = floats[name]
    for scheme in ("float32", "float16"):
        rows = layer_errors(net.files[scheme, suffix], net.graph, IMAGES).rows
        assert first_diverging(rows, scheme) is None, scheme
        assert builds_up(rows, scheme) is None
    file = written[name].tflite if suffix == ".tflite" else written[name].onnx
    assert first(file, net.graph, "int8") is None


def gated(curved: tuple[str, str]) -> Any:
    """Swish, a gate, branches that are joined, separable and transposed convolutions, two dense layers.

    curved: two activations, which not every scheme has.
    """
    x = image = keras.Input((16, 16, 3), name="image")
    x = layers.Normalization(mean=[0.1, 0.2, 0.3], variance=[0.5, 1.0, 2.0], name="norm")(x)
    x = layers.Conv2D(8, 3, strides=2, padding="same", activation="silu", name="stem")(x)
    gate = layers.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x)
    gate = layers.Conv2D(8, 1, activation="sigmoid", name="excite")(gate)
    x = layers.Multiply(name="gated")([x, gate])
    left = layers.SeparableConv2D(8, 3, padding="same", activation="relu", name="separable")(x)
    right = layers.LeakyReLU(0.2, name="leaky")(layers.Conv2D(8, 1, name="point")(layers.MaxPooling2D(1)(x)))
    x = layers.Concatenate(name="joined")([left, right])
    x = layers.Conv2DTranspose(4, 2, strides=2, name="up")(x)
    x = layers.AveragePooling2D(2, name="pool")(layers.Activation(curved[0], name="curved")(x))
    x = layers.Dense(12, activation=curved[1], name="dense")(layers.Flatten(name="flat")(x))
    return keras.Model(image, layers.Dense(10, activation="sigmoid", name="head")(layers.Dropout(0.2)(x)))


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
@pytest.mark.parametrize("scheme", ["float32", "float16", "int8"])
def test_no_layer_of_a_network_of_many_kinds_diverges(scheme: Scheme, suffix: str, tmp_path: Path) -> None:
    from toolkit.exporters.onnx import ONNX
    from toolkit.exporters.tflite import TFLite

    keras.utils.set_random_seed(2)
    graph = gated(("relu", "relu") if scheme == "int8" else ("tanh", "elu"))
    meaning = Signature(ENDS, (TensorSpec("head", (None, 10), "float32", "sigmoids"),))
    exporter: Any = TFLite() if suffix == ".tflite" else ONNX(layout="NCHW")
    model = Model("keras", graph, meaning, quant=QuantSpec(scheme))
    exporter.export(model, tmp_path / f"file{suffix}", ExportContext(Noise()))
    errors = layer_errors(tmp_path / f"file{suffix}", graph, IMAGES)
    assert first_diverging(errors.rows, scheme) is None
    named = {layer for row in errors.rows for layer in row.layers}
    assert {"stem", "excite", "gated", "point", "leaky", "joined", "up", "dense", "head"} <= named
    assert errors.kernels_db is not None
    assert errors.kernels_db > (12 if scheme == "int8" else 40)


# ---------------------------------------------------------------- faults in .tflite files


def outputs(path: Path) -> dict[int, str]:
    return {
        i: tflite_file.text(t.name) for i, t in enumerate(tflite_file.parse(path.read_bytes()).subgraphs[0].tensors)
    }


def planted(path: Path, kind: str, to: Path) -> Iterator[int]:
    """The file written to `to` with one fault after the other; the tensor of the operator that is faulty."""
    content = path.read_bytes()
    kinds = [operator.kind for operator in tflite_file.read(path).operators]
    for place, operator_kind in enumerate(kinds):
        model = tflite_file.parse(content)
        operator = model.subgraphs[0].operators[place]
        if operator_kind in HELD and spoil(model, operator, kind):
            to.write_bytes(tflite_file.pack(model))
            yield int(operator.outputs[0])


def spoil(model: Any, operator: Any, kind: str) -> bool:
    """Plant a fault in one operator; False where it cannot have this one."""
    options = operator.builtinOptions
    if kind in ("weights", "bias"):
        tensor = model.subgraphs[0].tensors[operator.inputs[1 if kind == "weights" else 2]]
        buffer = model.buffers[tensor.buffer]
        if buffer.data is None:  # a bias of zeros
            return False
        values = np.frombuffer(bytes(buffer.data), np.float32)
        generator = np.random.default_rng(0)
        other = generator.permutation(values) if kind == "weights" else values + generator.normal(0, 3, values.shape)
        buffer.data = np.frombuffer(other.astype(np.float32).tobytes(), np.uint8)
        return True
    if kind == "geometry":  # a dilation keeps the shape where padding is SAME
        if min(model.subgraphs[0].tensors[operator.inputs[1]].shape[1:3]) < 3 or getattr(options, "strideW", 2) > 1:
            return False
        options.dilationWFactor = options.dilationHFactor = 2
        return True
    if kind == "tanh" and options.fusedActivationFunction != NONE:
        options.fusedActivationFunction = TANH
        return True
    if kind == "clipped" and options.fusedActivationFunction == NONE:
        options.fusedActivationFunction = RELU
        return True
    return False


@pytest.mark.parametrize("kind", ["weights", "bias", "geometry", "tanh", "clipped"])
@pytest.mark.parametrize("name", NETS)
def test_planted_fault_in_a_tflite_file_is_named_first(
    name: str, kind: str, floats: dict[str, Floats], tmp_path: Path
) -> None:
    net = floats[name]
    path = net.files["float32", ".tflite"]
    sound = {row.tensor: row.layers for row in layer_errors(path, net.graph, IMAGES).rows}
    names, tried = outputs(path), 0
    for tensor in list(planted(path, kind, tmp_path / "bad.tflite"))[::3]:
        bad = next(tmp_path / "bad.tflite" for key in planted(path, kind, tmp_path / "bad.tflite") if key == tensor)
        found = first(bad, net.graph, "float32")
        assert found is not None, names[tensor]
        assert found.layer in sound[names[tensor]], (found.layer, sound[names[tensor]])
        assert set(found.row.layers) & set(sound[names[tensor]])
        tried += 1
    assert tried >= 1


def test_missing_activation_is_named_and_said(floats: dict[str, Floats], tmp_path: Path) -> None:
    net = floats["residual"]
    path = net.files["float32", ".tflite"]
    model = tflite_file.parse(path.read_bytes())
    operators = model.subgraphs[0].operators
    place = [i for i, each in enumerate(tflite_file.read(path).operators) if each.kind == "CONV_2D"][3]
    operators[place].builtinOptions.fusedActivationFunction = NONE
    (tmp_path / "bad.tflite").write_bytes(tflite_file.pack(model))
    found = first(tmp_path / "bad.tflite", net.graph, "float32")
    assert found is not None
    assert (found.layer, found.row.omitted) == ("b1_relu1", "b1_relu1")
    assert "the file leaves it out" in sentence(found, "float32")


def test_what_is_no_number_is_named_where_it_begins(floats: dict[str, Floats], tmp_path: Path) -> None:
    net = floats["mobile"]
    path = net.files["float32", ".tflite"]
    model = tflite_file.parse(path.read_bytes())
    operator = [each for each in model.subgraphs[0].operators if len(each.inputs) == 3][4]
    buffer = model.buffers[model.subgraphs[0].tensors[operator.inputs[2]].buffer]
    values = np.frombuffer(bytes(buffer.data), np.float32).copy()
    values[1] = np.nan
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    (tmp_path / "bad.tflite").write_bytes(tflite_file.pack(model))
    named = outputs(path)[int(operator.outputs[0])]
    (sound,) = (row.layers for row in layer_errors(path, net.graph, IMAGES).rows if row.tensor == named)
    found = first(tmp_path / "bad.tflite", net.graph, "float32")
    assert found is not None
    assert found.layer in sound
    assert found.row.alone_db == -200


def test_output_without_its_last_activation_is_named(floats: dict[str, Floats], tmp_path: Path) -> None:
    """The file ends before the softmax: every tensor it has is sound."""
    net = floats["mobile"]
    path = net.files["float32", ".tflite"]
    model = tflite_file.parse(path.read_bytes())
    graph = model.subgraphs[0]
    last = graph.operators.pop()
    graph.outputs = [last.inputs[0]]
    for pair in model.signatureDefs[0].outputs:
        pair.tensorIndex = last.inputs[0]
    (tmp_path / "bad.tflite").write_bytes(tflite_file.pack(model))
    found = first(tmp_path / "bad.tflite", net.graph, "float32")
    assert found is not None
    assert found.layer == "head_softmax"


def test_wrong_scale_in_an_int8_file_is_named_first(written: dict[str, Written], tmp_path: Path) -> None:
    net = written["residual"]
    sound = {row.tensor: row.layers for row in layer_errors(net.tflite, net.graph, IMAGES).rows}
    names = outputs(net.tflite)
    operators = tflite_file.parse(net.tflite.read_bytes()).subgraphs[0].operators
    weighted = [int(each.outputs[0]) for each in operators if len(each.inputs) == 3]
    for tensor in weighted[1::3]:
        model = tflite_file.parse(net.tflite.read_bytes())
        quantization = model.subgraphs[0].tensors[tensor].quantization
        quantization.scale = [float(scale) * 8 for scale in quantization.scale]
        (tmp_path / "bad.tflite").write_bytes(tflite_file.pack(model))
        found = first(tmp_path / "bad.tflite", net.graph, "int8")
        assert found is not None
        assert found.layer in sound[names[tensor]]


# ---------------------------------------------------------------- faults in .onnx files


def onnx_faults(proto: Any, kind: str) -> Iterator[str]:
    """Plant one fault after the other in copies: `proto` is changed in place and put back; the faulty tensor's name."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in proto.graph.initializer}
    for node in list(proto.graph.node):
        if kind == "weights" and node.op_type in ("Conv", "Gemm", "MatMul") and node.input[1] in constants:
            tensor, kept = constants[node.input[1]], type(constants[node.input[1]])()
            kept.CopyFrom(tensor)
            values = numpy_helper.to_array(tensor)
            mixed = np.random.default_rng(0).permutation(values.ravel()).reshape(values.shape)
            tensor.CopyFrom(numpy_helper.from_array(mixed, tensor.name))
            yield node.output[0]
            tensor.CopyFrom(kept)
        elif kind == "padding" and node.op_type == "Conv":
            (pads,) = [a for a in node.attribute if a.name == "pads"] or [None]
            if pads is None or not any(pads.ints):
                continue
            before = list(pads.ints)
            pads.ints[:] = [pads.ints[0] + 1, pads.ints[1], pads.ints[2] - 1, pads.ints[3]]  # a row too high
            yield node.output[0]
            pads.ints[:] = before
        elif kind == "activation" and node.op_type in ("Relu", "Clip"):
            before, inputs = node.op_type, list(node.input)
            node.op_type = "Tanh"
            del node.input[1:]
            yield node.output[0]
            node.op_type = before
            node.input[:] = inputs


@pytest.mark.parametrize("kind", ["weights", "padding", "activation"])
@pytest.mark.parametrize("name", NETS)
def test_planted_fault_in_an_onnx_file_is_named_first(
    name: str, kind: str, floats: dict[str, Floats], tmp_path: Path
) -> None:
    import onnx

    net = floats[name]
    path = net.files["float32", ".onnx"]
    sound = {row.tensor: row.layers for row in layer_errors(path, net.graph, IMAGES).rows}
    proto, tried = onnx.load(str(path)), 0
    for i, tensor in enumerate(onnx_faults(proto, kind)):
        if i % 3 or tensor not in sound:
            continue
        onnx.save(proto, str(tmp_path / "bad.onnx"))
        found = first(tmp_path / "bad.onnx", net.graph, "float32")
        assert found is not None, tensor
        assert found.layer in sound[tensor], (found.layer, sound[tensor])
        tried += 1
    assert tried >= 1


# ---------------------------------------------------------------- two files beside each other


def beside(net: Floats, one: Path, other: Path, schemes: tuple[str, str] = ("float32", "float32")) -> Any:
    found = between((one, other), schemes, net.graph, IMAGES)
    assert found is not None
    return found


def test_sound_files_of_two_formats_are_alike(floats: dict[str, Floats], written: dict[str, Written]) -> None:
    net = floats["residual"]
    found = beside(net, net.files["float32", ".tflite"], net.files["float32", ".onnx"])
    assert (found.first, found.at_fault) == (None, ())
    assert found.worst.sqnr_db > 100
    assert found.layers >= 10
    assert "no layer diverges" in found.sentence()
    int8 = written["residual"]
    assert beside(net, int8.tflite, int8.onnx, ("int8", "int8")).first is None


def test_of_two_files_the_broken_one_is_named_with_its_layer(floats: dict[str, Floats], tmp_path: Path) -> None:
    import onnx

    net, path = floats["residual"], tmp_path / "bad.onnx"
    good = net.files["float32", ".tflite"]
    proto = onnx.load(str(net.files["float32", ".onnx"]))
    faults = onnx_faults(proto, "weights")
    for _ in range(4):
        next(faults)
    onnx.save(proto, str(path))
    alone = first(path, net.graph, "float32")
    found = beside(net, good, path)
    assert found.at_fault == (("bad.onnx", alone.layer),)
    assert found.first is not None
    assert alone.layer in found.first.rows[0].layers
    assert found.first.largest == pytest.approx(alone.row.largest, rel=0.5)
    assert f"at fault: bad.onnx, from {alone.layer} on" in found.sentence()
    assert beside(net, path, good).at_fault == found.at_fault


# ---------------------------------------------------------------- rows alone


def row(place: int, own: float, whole: float, lost: float = 0.0, largest: float = 1.0, layer: str = "") -> LayerError:
    name = layer or f"l{place}"
    return LayerError(
        name, (name,), "CONV_2D", "t", "float32", whole, own, lost, -1, 1, 0, 0, 0, "", place, largest, 0, 1
    )


def test_first_is_by_the_files_order_and_not_by_error() -> None:
    rows = [row(2, 5, 5), row(0, 100, 100), row(1, 50, 50)]
    found = first_diverging(rows, "float32")
    assert found is not None
    assert (found.layer, found.place, found.compared, found.others) == ("l1", 2, 3, 1)
    assert sentence(found, "float32").endswith("; by their own error so do 1 after it")


@pytest.mark.parametrize(
    ("scheme", "own", "lost", "diverges"),
    [
        ("float32", 59, 0, True),
        ("float32", 61, 40, False),
        ("float16", 46, 0, False),
        ("float16", 44, 0, True),
        ("int8", 30, 14.9, False),
        ("int8", 30, 15.1, True),
        ("weight_int4", 20, 28, False),
        ("weight_int4", 20, 40, True),
    ],
)
def test_each_scheme_explains_so_much(scheme: Scheme, own: float, lost: float, *, diverges: bool) -> None:
    assert (first_diverging([row(0, own, own, lost)], scheme) is not None) == diverges


def test_rounding_beside_nothing_is_no_fault() -> None:
    """A dead channel: signal of nothing, and sums that end a millionth of the inputs beside it."""
    assert first_diverging([row(0, -200, 90, largest=1e-7)], "float32") is None


def test_errors_that_build_up_are_named_from_where_they_stay_large() -> None:
    rows = [row(0, 30, 40), row(1, 30, 11), row(2, 30, 13), row(3, 30, 11), row(4, 30, 9)]
    found = builds_up(rows, "int8")
    assert found is not None
    assert found.layer == "l3"
    assert builds_up(rows[:3], "int8") is None
