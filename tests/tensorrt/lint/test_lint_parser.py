"""The linter against NVIDIA's own parser and builder on a CPU: what is refused, and which convolutions are int8."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from drawn import Drawing, good
from refusals import CASES

from toolkit.tensorrt.lint import lint
from toolkit.tensorrt.lint_flow import Flow
from toolkit.tensorrt.lint_graph import Graph
from toolkit.tensorrt.lint_refused import MISSING
from toolkit.tensorrt.types import Target

trt = pytest.importorskip("tensorrt_rtx")
RTX = Target(tensorrt=trt.__version__, compute_capability="8.6", device="", platform="", flavour="tensorrt_rtx")


class Log(trt.ILogger):  # type: ignore[misc]
    """Keeps what the builder says."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        self.lines.append(message)


def parsed(model: Any, log: Log) -> tuple[bool, Any, Any]:
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, log)
    return parser.parse(model.SerializeToString()), builder, (network, parser)


def int8_layers(model: Any) -> set[str]:
    """Convolutions and products of the engine that read int8, from the builder's own list of layers."""
    log = Log()
    accepted, builder, (network, _) = parsed(model, log)
    assert accepted
    config = builder.create_builder_config()
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    assert builder.build_serialized_network(network, config) is not None
    layers = next(line for line in log.lines if line.startswith("Layers:"))
    found = re.findall(r"Name: (\S+)_myl\d+_\d+, LayerType: (?:correlation|gemm), .*?Datatype: (\w+)", layers)
    assert found or "runtime_fusion" in layers  # what products in floating point are
    return {name for name, kind in found if kind == "Int8"}


@pytest.mark.parametrize("name", CASES)
def test_refused_is_what_the_parser_refuses(name: str) -> None:
    model = onnx.shape_inference.infer_shapes(CASES[name]())
    accepted, *_ = parsed(model, Log())
    refused = lint(model, target=RTX).of("refused")
    assert bool(refused) != accepted, [finding.what for finding in refused]


def test_both_kinds_of_file_are_among_the_cases() -> None:
    verdicts = [parsed(onnx.shape_inference.infer_shapes(build()), Log())[0] for build in CASES.values()]
    assert min(verdicts.count(True), verdicts.count(False)) > 25


def test_missing_operators_are_those_the_parser_says_it_has_not() -> None:
    builder = trt.Builder(Log())
    parser = trt.OnnxParser(builder.create_network(0), Log())
    operators = {schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""}
    assert {name for name in operators if not parser.supports_operator(name)} == set(MISSING)


def moved(kind: str, *inputs: Any, channels: int = 16, **attributes: Any) -> Callable[[], Any]:
    """A pair, an operator, and a convolution whose weights are quantized."""

    def build() -> Any:
        draw = Drawing()
        rest = ["" if value is None else draw.constant(value) for value in inputs]
        return draw.model(draw.conv(draw.node(kind, draw.pair("x"), *rest, **attributes), (channels, 16)))

    return build


def joined(second: float) -> Callable[[], Any]:
    def build() -> Any:
        draw = Drawing()
        both = draw.node("Concat", draw.pair("x"), draw.pair("x", second), axis=1)
        return draw.model(draw.conv(both, (32, 16)))

    return build


def plain(**options: Any) -> Callable[[], Any]:
    def build() -> Any:
        draw = Drawing()
        quantized, weights = options.get("activations", {}), options.get("weights", True)
        source = "x" if quantized is None else draw.pair("x", **quantized)
        return draw.model(draw.conv(source, qdq=weights, **options.get("more", {})))

    return build


def axis_of_weights(axis: int) -> Callable[[], Any]:
    def build() -> Any:
        draw = Drawing()
        weight = draw.pair(draw.weights(16, 16, 3, 3), np.full(16, 0.02), axis=axis)
        return draw.model(draw.node("Conv", draw.pair("x"), weight, name="conv"))

    return build


def dense(*, pair: bool = True, axis: int = 0) -> Callable[[], Any]:
    def build() -> Any:
        draw = Drawing(shape=(4, 16))
        return draw.model(draw.dense(draw.pair("x") if pair else "x", (16, 16), axis=axis))

    return build


PADS = np.array([0, 0, 1, 1, 0, 0, 1, 1])
DOUBLED = np.array([1, 1, 2, 2], np.float32)
BUILT: dict[str, Callable[[], Any]] = {
    "good placement": good,
    "pair on both inputs": plain(),
    "pair on weights alone": plain(activations=None),
    "pair on the input alone": plain(weights=False),
    "no pair": plain(activations=None, weights=False),
    "activation with 16 scales": plain(activations={"scale": np.full(16, 0.05), "axis": 1}),
    "depthwise": plain(more={"group": 16}),
    "weights along their outputs": axis_of_weights(0),
    "weights along their inputs": axis_of_weights(1),
    "behind padding": moved("Pad", PADS),
    "behind max pooling": moved("MaxPool", kernel_shape=[2, 2]),
    "behind a transpose": moved("Transpose", perm=[0, 1, 3, 2]),
    "behind a slice": moved("Slice", np.array([0]), np.array([1]), np.array([0])),
    "behind depth to space": moved("DepthToSpace", blocksize=2, channels=4),
    "behind an average": moved("AveragePool", kernel_shape=[2, 2]),
    "behind a nearest resize": moved("Resize", None, DOUBLED, mode="nearest"),
    "behind an activation": moved("Relu"),
    "behind a clip": moved("Clip", np.float32(0), np.float32(6)),
    "behind a join of one scale": joined(0.05),
    "behind a join of two scales": joined(0.1),
    "dense": dense(),
    "dense with scales along its inputs": dense(axis=1),
    "dense with a pair on its weights alone": dense(pair=False),
}


@pytest.mark.parametrize("name", BUILT)
def test_int8_layers_are_those_of_the_engine(name: str) -> None:
    model = onnx.shape_inference.infer_shapes(BUILT[name]())
    flow = Flow(Graph(model))
    ours = {node.name for node in flow.graph.nodes if node.op_type in ("Conv", "Gemm") and flow.computes(node)}
    assert ours == int8_layers(model)


@pytest.mark.data
@pytest.mark.parametrize("exporter", ["torch", "torch_dynamo"])
def test_real_network_of_both_torch_exporters_is_taken(exporter: str) -> None:
    folder = Path(os.environ.get("EDGEKIT_DATA", "")) / "models" / "onnx"
    path = folder / f"resnet20_cifar10_{exporter}.onnx"
    if not path.is_file():
        pytest.skip("EDGEKIT_DATA names no folder with the real models")
    model = onnx.load(path)
    accepted, *_ = parsed(model, Log())
    report = lint(model, target=RTX)
    assert accepted
    assert not report.of("refused")
    assert (report.counts.convolutions, report.counts.products) == (19, 1)
