"""The linter on what onnxruntime's quantizer writes with several options, beside the verdicts of NVIDIA's parser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from drawn import Drawing
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from toolkit.tensorrt.lint import lint
from toolkit.tensorrt.lint_types import Report

KINDS = ["Add", "Conv", "Flatten", "Gemm", "GlobalAveragePool", "MaxPool", "Relu"]
SYMMETRIC = {"ActivationSymmetric": True, "WeightSymmetric": True, "QuantizeBias": False}
FOR_TENSORRT = {
    **SYMMETRIC,
    "AddQDQPairToWeight": True,
    "ForceQuantizeNoInputCheck": True,
    "OpTypesToExcludeOutputQuantization": KINDS,
    "QDQDisableWeightAdjustForInt32Bias": True,
}
INT8 = {"activation_type": QuantType.QInt8, "weight_type": QuantType.QInt8, "per_channel": True}
UINT8 = {**INT8, "activation_type": QuantType.QUInt8}
VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "uint8": {**UINT8, "extra_options": {"QuantizeBias": False}},
    "uint8, symmetric": {**UINT8, "extra_options": SYMMETRIC},
    "int8, asymmetric": {**INT8, "extra_options": {**FOR_TENSORRT, "ActivationSymmetric": False}},
    "int32 biases": {**INT8, "extra_options": {**SYMMETRIC, "QuantizeBias": True}},
    "operators": {**INT8, "quant_format": QuantFormat.QOperator},
    "stored weights": {**INT8, "extra_options": {**FOR_TENSORRT, "AddQDQPairToWeight": False}},
    "outputs too": {**INT8, "extra_options": {**SYMMETRIC, "AddQDQPairToWeight": True}},
    "pairs of their own": {**INT8, "extra_options": {**FOR_TENSORRT, "DedicatedQDQPair": True}},
    "for TensorRT": {**INT8, "extra_options": FOR_TENSORRT},
}
REFUSED = {"defaults", "uint8", "uint8, symmetric", "int8, asymmetric", "int32 biases", "operators"}


class Images(CalibrationDataReader):  # type: ignore[misc]
    """Four random ones."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        self.left = [{"x": random.normal(size=(1, 3, 16, 16)).astype(np.float32)} for _ in range(4)]

    def get_next(self) -> dict[str, Any] | None:
        return self.left.pop() if self.left else None


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A float residual net with a pooled end, quantized in every variant."""
    folder: Path = tmp_path_factory.mktemp("quantized")
    draw = Drawing(shape=(1, 3, 16, 16))
    stem = draw.node("Relu", draw.conv("x", (3, 16), name="stem", qdq=False))
    inner = draw.node("Relu", draw.conv(stem, name="first", qdq=False))
    added = draw.node("Relu", draw.node("Add", draw.conv(inner, name="second", qdq=False), stem, name="sum"))
    pooled = draw.node("MaxPool", added, kernel_shape=[2, 2], strides=[2, 2])
    last = draw.node("GlobalAveragePool", draw.conv(pooled, (16, 32), name="third", qdq=False), name="mean")
    model = draw.model(draw.dense(draw.node("Flatten", last), (32, 16), qdq=False))
    onnx.save(onnx.shape_inference.infer_shapes(model), folder / "float.onnx")
    found = {}
    for name, options in VARIANTS.items():
        path = folder / f"{len(found)}.onnx"
        asked = {"quant_format": QuantFormat.QDQ, "op_types_to_quantize": KINDS, **options}
        quantize_static(folder / "float.onnx", path, Images(), **asked)
        found[name] = onnx.load(path)
    return found


def slow(report: Report) -> set[str]:
    return {finding.rule for finding in report.of("slow")}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_are_refused_as_the_parser_refuses_them(written: dict[str, Any], name: str) -> None:
    trt = pytest.importorskip("tensorrt_rtx")
    logger = trt.Logger(trt.Logger.INTERNAL_ERROR)
    network = trt.Builder(logger).create_network(0)
    accepted = trt.OnnxParser(network, logger).parse(written[name].SerializeToString())
    assert accepted == (name not in REFUSED)


@pytest.mark.parametrize("name", VARIANTS)
def test_linter_refuses_the_same_variants(written: dict[str, Any], name: str) -> None:
    assert bool(lint(written[name]).of("refused")) == (name in REFUSED)


def test_options_for_tensorrt_leave_the_sum_to_be_fused_by_hand(written: dict[str, Any]) -> None:
    """All five layers in int8; the quantizer puts a pair on the convolution's side of the sum too."""
    report = lint(written["for TensorRT"])
    counts = report.counts
    assert (counts.int8_convolutions, counts.convolutions, counts.int8_products) == (4, 4, 1)
    assert slow(report) == {"sum-not-fused"}


def test_quantized_outputs_keep_activations_apart(written: dict[str, Any]) -> None:
    report = lint(written["outputs too"])
    assert "not-fused" in slow(report)
    assert report.counts.reformats > lint(written["for TensorRT"]).counts.reformats
