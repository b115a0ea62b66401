"""Zeros counted in files made by hand, and the rules on who makes use of them, each on a file just on either side."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.sparse_net import Net
from toolkit.checks.zeros import Zeros, is_sparse, measure_zeros, use_of, zeros_of
from toolkit.core import Artifact, Signature
from toolkit.devices import DeviceProfile, load_device
from toolkit.exporters import tflite_file, tflite_packed

DENSE = Artifact("m", Path("m.tflite"), "tflite", "float32", 1, "", Signature((), ()))
FIT = Zeros(0.8, 1000, 10, 0, packed=9, pointwise=0.8, starts=True)
PHONE = load_device("raspberry-pi-4")


def tflite(path: Path, *weights: tuple[Any, int, int]) -> Path:
    """A file of CONV_2D operators, one after the other; weights: (array, stride, padding: 0 same, 1 valid)."""
    schema = tflite_file.generated()
    model = schema.ModelT(version=3, buffers=[schema.BufferT()], operatorCodes=[schema.OperatorCodeT(builtinCode=3)])
    graph = schema.SubGraphT(tensors=[], operators=[], inputs=[0], outputs=[len(weights)])
    for number in range(len(weights) + 1):
        graph.tensors.append(schema.TensorT(shape=[1, 8, 8, 3], type=0, buffer=0, name=f"t{number}".encode()))
    for number, (array, stride, padding) in enumerate(weights):
        model.buffers.append(schema.BufferT(data=np.frombuffer(array.astype("<f4").tobytes(), np.uint8)))
        name = f"w{number}".encode()
        graph.tensors.append(schema.TensorT(shape=array.shape, type=0, buffer=len(model.buffers) - 1, name=name))
        how = schema.Conv2DOptionsT(strideH=stride, strideW=stride, padding=padding)
        ends = {"inputs": [number, len(graph.tensors) - 1], "outputs": [number + 1]}
        graph.operators.append(
            schema.OperatorT(builtinOptionsType=schema.BuiltinOptions.Conv2DOptions, builtinOptions=how, **ends)
        )
    model.subgraphs = [graph]
    path.write_bytes(tflite_file.pack(model))
    return path


def with_zeros(shape: tuple[int, ...], share: float) -> Any:
    array = np.random.default_rng(0).uniform(0.5, 1, shape)
    array.flat[np.random.default_rng(1).permutation(array.size)[: round(array.size * share)]] = 0
    return array


def halved(shape: tuple[int, ...], axis: int) -> Any:
    """Two of every four along an axis are zero."""
    array = np.ascontiguousarray(np.moveaxis(np.random.default_rng(0).uniform(0.5, 1, shape), axis, -1))
    array.reshape(-1, 4)[:, [1, 2]] = 0
    return np.ascontiguousarray(np.moveaxis(array, -1, axis))


def onnx(path: Path, *weights: Any, quantized: bool = False, group: int = 1) -> Path:
    from onnx import TensorProto, helper, numpy_helper

    nodes, constants, x = [], [], "x"
    for number, array in enumerate(weights):
        name = f"w{number}"
        constants.append(numpy_helper.from_array(array.astype(np.float32), name))
        if quantized:
            constants += [
                numpy_helper.from_array(np.float32(0.01), f"s{number}"),
                numpy_helper.from_array(np.int8(0), f"z{number}"),
            ]
            more = [f"s{number}", f"z{number}"]
            nodes += [
                helper.make_node("QuantizeLinear", [name, *more], [f"q{number}"]),
                helper.make_node("DequantizeLinear", [f"q{number}", *more], [f"d{number}"]),
            ]
            name = f"d{number}"
        kind, how = ("Conv", {"group": group}) if array.ndim == 4 else ("MatMul", {})
        nodes.append(helper.make_node(kind, [x, name], [f"y{number}"], **how))
        x = f"y{number}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", x)]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], constants)
    path.write_bytes(helper.make_model(graph).SerializeToString())
    return path


def test_zeros_of_a_tflite_file_are_counted_by_kind(tmp_path: Path) -> None:
    path = tflite(
        tmp_path / "m.tflite", (with_zeros((8, 3, 3, 3), 0.25), 2, 1), (with_zeros((10, 1, 1, 8), 0.75), 1, 0)
    )
    found = zeros_of(path)
    assert found == Zeros((54 + 60) / (216 + 80), 296, 2, 0, packed=0, pointwise=0.75, starts=True)
    assert zeros_of(tflite(tmp_path / "s.tflite", (with_zeros((8, 3, 3, 3), 0.25), 1, 1))).starts is False
    assert zeros_of(tflite(tmp_path / "p.tflite", (with_zeros((8, 3, 3, 3), 0.25), 2, 0))).pointwise is None


@pytest.mark.parametrize(("same", "count"), [("never", 0), ("stride 1", 0), ("always", 2)])
def test_strided_depthwise_convolutions_with_padding_same_are_counted(tmp_path: Path, same: Any, count: int) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(Net(0.9, same=same).content())
    found = zeros_of(path)
    assert (found.starts, found.same, found.pointwise) == (True, count, pytest.approx(0.9, abs=1e-3))


def test_packed_weights_count_as_before(tmp_path: Path) -> None:
    path = tflite(tmp_path / "m.tflite", (with_zeros((16, 3, 3, 32), 0.9), 1, 0))
    dense = zeros_of(path)
    path.write_bytes(tflite_packed.pack(path.read_bytes())[0])
    assert zeros_of(path) == replace(dense, packed=1)


def test_two_of_four_lies_along_input_channels(tmp_path: Path) -> None:
    shape = (8, 3, 3, 8)  # outputs, height, width, inputs
    files = [tflite(tmp_path / f"{axis}.tflite", (halved(shape, axis), 1, 0)) for axis in (3, 0)]
    assert [zeros_of(file).two_of_four for file in files] == [1, 0]
    assert zeros_of(tflite(tmp_path / "6.tflite", (with_zeros((4, 1, 1, 6), 0.9), 1, 0))).two_of_four == 0  # 6 channels


@pytest.mark.parametrize("quantized", [False, True])
def test_zeros_of_an_onnx_file_are_found_behind_its_pairs(tmp_path: Path, quantized: bool) -> None:
    weights = halved((8, 8, 3, 3), 1), halved((8, 12), 0), with_zeros((12, 4), 0.25)
    found = zeros_of(onnx(tmp_path / "m.onnx", *weights, quantized=quantized))
    assert (found.two_of_four, found.layers, found.weights) == (2, 3, 576 + 96 + 48)
    assert found.share == pytest.approx((288 + 48 + 12) / 720)
    turned = zeros_of(onnx(tmp_path / "t.onnx", halved((8, 8, 3, 3), 0), quantized=quantized))
    assert turned.two_of_four == 0


def test_depthwise_weights_have_no_input_channels_to_share(tmp_path: Path) -> None:
    assert zeros_of(onnx(tmp_path / "m.onnx", halved((8, 4, 3, 3), 1), group=2)).two_of_four == 0


@pytest.mark.parametrize(
    ("change", "scheme", "delegate", "words"),
    [
        ({}, "float32", "none", "LiteRT's own kernels"),
        ({}, "int8", "xnnpack", "in float alone, this file is int8"),
        ({"packed": 0}, "float32", "xnnpack", "packed files alone"),
        ({"same": 2}, "float32", "xnnpack", "2 depthwise convolutions of stride 2 have padding SAME"),
        ({"starts": False}, "float32", "xnnpack", "no 3x3 convolution of 3 channels"),
        ({"pointwise": 0.66}, "float32", "xnnpack", "66% of their weights are zero"),
        ({"pointwise": None}, "float32", "xnnpack", "no 1x1 convolutions"),
    ],
)
def test_xnnpack_skips_zeros_only_where_all_its_conditions_hold(
    change: dict[str, Any], scheme: Any, delegate: str, words: str
) -> None:
    use = use_of(replace(DENSE, scheme=scheme), replace(FIT, **change), PHONE, "litert", delegate)
    assert use.used == "no" and words in use.why and use.source
    assert use_of(DENSE, FIT, PHONE, "litert", "xnnpack").used == "open"


def test_xnnpack_skips_no_zeros_on_x86(monkeypatch: pytest.MonkeyPatch) -> None:
    there, here = PHONE.model_copy(update={"arch": "x86_64"}), load_device("this-machine")
    assert use_of(DENSE, FIT, there, "litert", "xnnpack").why == "XNNPACK's sparse kernels are off on x86 with AVX"
    for machine, used in (("x86_64", "no"), ("aarch64", "open")):
        monkeypatch.setattr("platform.machine", lambda name=machine: name)
        assert use_of(DENSE, FIT, here, "litert", "xnnpack").used == used


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "tflite-micro"])
def test_other_processors_runtimes_compute_with_all_weights(runtime: str) -> None:
    use = use_of(DENSE, FIT, PHONE, runtime, "none")
    assert (use.used, "all weights" in use.why) == ("no", True)


def test_tensorrt_needs_two_of_four_and_says_how_to_allow_it() -> None:
    orin = load_device("jetson-orin-nano-8")
    some = replace(FIT, two_of_four=3)
    assert "no layer has two zeros" in use_of(DENSE, FIT, orin, "tensorrt", "gpu").why
    assert "edgekit engine --sparse` allows them in 3 of 10" in use_of(DENSE, some, orin, "tensorrt", "gpu").why
    old: DeviceProfile = orin.model_copy(update={"compute_capability": "7.2"})
    assert "7.2 has no sparse tensor cores" in use_of(DENSE, some, old, "tensorrt", "gpu").why


def test_number_says_what_a_device_makes_of_it() -> None:
    found = measure_zeros(DENSE, FIT, PHONE, "onnxruntime", "none")
    assert (found.subject, found.name, found.value, found.device) == ("m", "zeros", 0.8, "raspberry-pi-4")
    assert found.how["used"] == "no" and found.how["packed"] == "9 of 10 weights"
    assert is_sparse(FIT) and is_sparse(replace(FIT, share=0.1, two_of_four=5))
    assert not is_sparse(replace(FIT, share=0.1, two_of_four=2))


def test_zeros_are_not_said_to_be_of_no_use_where_an_accelerator_reads_compressed_weights() -> None:
    ethos = load_device("cortex-m55-ethos-u55")
    use = use_of(replace(DENSE, scheme="int8"), FIT, ethos, "tflite-micro", "none")
    assert use.used == "open" and "Vela" in use.why
    assert use_of(replace(DENSE, scheme="float32"), FIT, ethos, "tflite-micro", "none").used == "no"
