"""Files that are the source themselves: they go out as they came, or quantized just as asked, or not at all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from toolkit.core import ExportContext, Model, QuantSpec
from toolkit.errors import InputError, UnsupportedError
from toolkit.exporters import onnx_file, tflite_file, tflite_scan
from toolkit.exporters.onnx import ONNX
from toolkit.exporters.tflite import TFLite


@pytest.fixture(scope="module")
def models(digits_files: dict[str, Path]) -> dict[str, Model]:
    from toolkit import registry

    return {kind: registry.load("sources", kind)().load(path) for kind, path in digits_files.items()}


@pytest.fixture(scope="module")
def context() -> ExportContext:
    from toolkit.datasets.digits import Digits
    from toolkit.datasets.preprocess import PreprocessSpec
    from toolkit.datasets.splits import SplitSpec, make_splits

    contract = PreprocessSpec(scale=0.0625).resolve((None, 8, 8, 1))
    return ExportContext(
        make_splits(Digits().load(), None, SplitSpec(calibration=60, test=100), contract, 0).calibration
    )


def quantized(model: Model, *quant: Any) -> Model:
    return replace(model, quant=QuantSpec(*quant))


def test_float_files_go_out_as_they_came(models: dict[str, Model], context: ExportContext, tmp_path: Path) -> None:
    for kind, exporter in (("tflite", TFLite()), ("onnx", ONNX())):
        artifact = exporter.export(models[kind], tmp_path / f"out.{kind}", context)
        assert artifact.path.read_bytes() == Path(models[kind].graph).read_bytes()
        assert artifact.scheme == "float32"
        assert [spec.layout for spec in artifact.signature.inputs] == ["NCHW" if kind == "onnx" else "NHWC"]


@pytest.mark.parametrize("granularity", ["per_channel", "per_tensor"])
@pytest.mark.parametrize("io", ["float32", "int8", "uint8"])
def test_tflite_source_becomes_int8_as_asked(
    models: dict[str, Model], context: ExportContext, tmp_path: Path, granularity: str, io: str
) -> None:
    model = quantized(models["tflite"], "int8", granularity, io)
    artifact = TFLite().export(model, tmp_path / "out.tflite", context)
    assert [(s.name, s.dtype) for s in (*artifact.signature.inputs, *artifact.signature.outputs)] == [
        ("image", io),
        ("classes", io),
    ]
    counts = [len(tensor.scales) for _, tensor, _ in tflite_scan.weights(tflite_file.read(artifact.path))]
    assert counts == ([12, 16, 10] if granularity == "per_channel" else [1, 1, 1])


def test_tflite_ranges_are_the_least_and_greatest_values(
    models: dict[str, Model], context: ExportContext, tmp_path: Path
) -> None:
    """The input's scale is (max - min) / 255 over the whole split, where a moving average would give less."""
    assert context.calibration is not None
    pixels = np.concatenate([batch.inputs["image"] for batch in context.calibration.batches(60)])
    artifact = TFLite().export(quantized(models["tflite"], "int8", "per_channel", "int8"), tmp_path / "m", context)
    (_, image), *_ = tflite_file.read(artifact.path).inputs
    low, high = min(0.0, float(pixels.min())), float(pixels.max())
    assert image.scales[0] == pytest.approx((high - low) / 255, rel=1e-6)


@pytest.mark.parametrize("scheme", ["float16", "dynamic"])
def test_tflite_source_is_stored_narrower(
    models: dict[str, Model], context: ExportContext, tmp_path: Path, scheme: str
) -> None:
    artifact = TFLite().export(quantized(models["tflite"], scheme), tmp_path / "out.tflite", context)
    assert tflite_scan.scheme_of(tflite_file.read(artifact.path)) == scheme
    assert artifact.size_bytes < 0.75 * Path(models["tflite"].graph).stat().st_size


@pytest.mark.parametrize("scheme", ["float16", "int8"])
def test_onnx_source_keeps_its_ends(
    models: dict[str, Model], context: ExportContext, tmp_path: Path, scheme: str
) -> None:
    artifact = ONNX().export(quantized(models["onnx"], scheme), tmp_path / "out.onnx", context)
    (image,), (classes,) = artifact.signature.inputs, artifact.signature.outputs
    assert (image.name, image.shape, image.layout, image.dtype) == ("image", (None, 1, 8, 8), "NCHW", "float32")
    assert (classes.name, classes.shape, classes.meaning) == ("classes", (None, 10), "softmax")
    kinds = {node.op_type for node in onnx_file.read(artifact.path).nodes}
    assert ("QuantizeLinear" in kinds) == (scheme == "int8")


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"layout": "NHWC"}, "is NCHW, NHWC was asked for"),
        ({"opset": 17}, "in operator set 18, 17 was asked for"),
        ({"input_shape": (9, 9)}, "onnx.input_shape"),
    ],
)
def test_onnx_source_is_not_bent(
    models: dict[str, Model], context: ExportContext, tmp_path: Path, asked: dict[str, Any], words: str
) -> None:
    with pytest.raises(UnsupportedError, match=words):
        ONNX(**asked).export(quantized(models["onnx"], "float16"), tmp_path / "out.onnx", context)
    assert not list(tmp_path.iterdir())


def test_scales_per_channel_need_operator_set_13(
    models: dict[str, Model], context: ExportContext, tmp_path: Path
) -> None:
    from onnx import TensorProto, helper, numpy_helper

    from toolkit.sources import onnx as source

    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("image", [1, 1, 8, 8]), ("classes", [1, 10, 1, 1]))
    ]
    kernel = numpy_helper.from_array(np.ones((10, 1, 8, 8), np.float32), "kernel")
    node = helper.make_node("Conv", ["image", "kernel"], ["classes"])
    graph = helper.make_graph([node], "old", ends[:1], ends[1:], [kernel])
    path = tmp_path / "old.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6), str(path))
    with pytest.raises(UnsupportedError, match="operator set 11"):
        ONNX().export(quantized(source.ONNX().load(path), "int8"), tmp_path / "out.onnx", context)


def test_savedmodel_becomes_files_that_answer_as_it_does(
    models: dict[str, Model], context: ExportContext, tmp_path: Path
) -> None:
    from toolkit.engine import foreign

    images = np.random.default_rng(0).uniform(0, 1, (3, 8, 8, 1)).astype(np.float32)
    model = models["savedmodel"]
    port = foreign.Port("image")
    expected = foreign.answers(foreign.Network("savedmodel", model.graph, (port,), ("output_0",)), {"image": images})[0]
    for exporter in (TFLite(), ONNX()):
        artifact = exporter.export(model, tmp_path / f"out{exporter.suffix}", context)
        names = tuple(spec.name for spec in artifact.signature.outputs)
        assert (artifact.signature.inputs[0].name, names) == ("image", ("output_0",))
        network = foreign.Network(exporter.format, artifact.path, (port,), names)
        np.testing.assert_allclose(foreign.answers(network, {"image": images})[0], expected, atol=1e-5)


def test_what_is_quantized_already_goes_out_as_it_is(
    models: dict[str, Model], context: ExportContext, tmp_path: Path
) -> None:
    from toolkit.core import PassContext
    from toolkit.passes.quantize import Quantize
    from toolkit.sources.tflite import TFLite as Source

    made = TFLite().export(quantized(models["tflite"], "int8"), tmp_path / "int8.tflite", context)
    model = Source().load(made.path)
    assert model.quant.scheme == "int8"
    with pytest.raises(UnsupportedError, match=r"int8 already.*can only be checked"):
        Quantize(scheme="int8").run(model, PassContext())
    again = TFLite().export(model, tmp_path / "again.tflite", context)
    assert (again.scheme, again.sha256) == ("int8", made.sha256)


def test_kinds_that_no_converter_takes_are_refused_with_the_reason(
    models: dict[str, Model], context: ExportContext, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="onnx2tf"):
        TFLite().export(models["onnx"], tmp_path / "out.tflite", context)
    with pytest.raises(InputError, match=r"no converter from \.tflite to ONNX"):
        ONNX().export(models["tflite"], tmp_path / "out.onnx", context)


def test_onnx_source_is_calibrated_by_the_method_asked_for(
    models: dict[str, Model], context: ExportContext, tmp_path: Path
) -> None:
    """The input's scale: of all pixels, or of the share that a percentile keeps."""
    assert context.calibration is not None
    pixels = np.concatenate([batch.inputs["image"] for batch in context.calibration.batches(60)])
    scales = {}
    for quant in (QuantSpec("int8"), QuantSpec("int8", ranges="percentile", percentile=80.0)):
        artifact = ONNX().export(replace(models["onnx"], quant=quant), tmp_path / "out.onnx", context)
        file = onnx_file.read(artifact.path)
        (first,) = [node for node in file.nodes if node.op_type == "QuantizeLinear" and node.input[0] == "image"]
        values = file.values(first.input[1])
        assert values is not None
        scales[quant.ranges] = float(values)
    assert scales["minmax"] == pytest.approx(float(pixels.max()) / 255, rel=1e-6)
    assert scales["percentile"] < 0.999 * scales["minmax"]


def test_dense_layers_get_one_scale_where_a_devices_kernels_need_it(
    models: dict[str, Model], context: ExportContext, tmp_path: Path
) -> None:
    model = replace(models["tflite"], quant=QuantSpec("int8", dense_per_tensor=True))
    artifact = TFLite().export(model, tmp_path / "out.tflite", context)
    weights = list(tflite_scan.weights(tflite_file.read(artifact.path)))
    counts = {operator.kind: len(tensor.scales) for operator, tensor, _ in weights}
    assert counts.pop("FULLY_CONNECTED") == 1
    assert counts
    assert all(count > 1 for count in counts.values())
    assert "8-bit" in (TFLite().refusal(QuantSpec("int8", reduce_range=True), "tflite") or "")
