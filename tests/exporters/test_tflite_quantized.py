"""Keras models with ranges of their own: each scheme as asked, the ranges realised, layers apart, or a refusal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

from tests.exporters.conftest import SIZE, as_model, scatter
from toolkit.core import Artifact, ExportContext, Model, QuantSpec, Statistics
from toolkit.engine.calibrate import calibrate
from toolkit.engine.prepare import prepare
from toolkit.errors import InputError, UnsupportedError
from toolkit.exporters import tflite_file, tflite_scan
from toolkit.exporters.tflite import TFLite
from toolkit.quantization import TensorRange

L = keras.layers
Images = Callable[..., Any]


def branched() -> keras.Model:
    """Rescaling, BatchNormalization, branches joined, pools, swish, squeeze-excite, add, separable, dense, softmax."""
    keras.utils.set_random_seed(1)
    image = keras.Input((*SIZE, 3), name="image")
    x = L.Rescaling(2.0, offset=-1.0, name="rescale")(image)
    x = L.Conv2D(8, 3, padding="same", use_bias=False, name="stem")(x)
    x = L.BatchNormalization(name="stem_bn")(x)
    x = L.ReLU(name="stem_relu")(x)
    a = L.Conv2D(4, 1, activation="swish", name="left")(x)
    b = L.DepthwiseConv2D(3, padding="same", name="right")(x)
    x = L.Concatenate(name="join")([a, L.MaxPooling2D(3, strides=1, padding="same", name="pool")(b)])
    gate = L.Dense(12, activation="sigmoid", name="gate")(L.GlobalAveragePooling2D(keepdims=True, name="squeeze")(x))
    x = L.Multiply(name="excite")([x, gate])
    x = L.SeparableConv2D(12, 3, padding="same", activation="relu", name="separable")(x)
    x = L.Add(name="sum")([x, L.Conv2D(12, 1, name="shortcut")(x)])
    x = L.GlobalAveragePooling2D(name="gap")(x)
    return scatter(keras.Model(image, L.Dense(5, activation="softmax", name="classes")(x), name="branched"))


def with_ranges(model: Model, data: Any) -> Model:
    """The model with the least and greatest values of its prepared graph's tensors."""
    graph = prepare(model.graph).graph
    found = calibrate(graph, (batch.inputs for batch in data.batches(4)))
    return replace(model, statistics=Statistics(found.ranges("minmax"), found.images))


@pytest.fixture(scope="module")
def model(images: Images) -> Model:
    plain = as_model(branched())
    return with_ranges(plain, images(plain))


@pytest.fixture
def export(model: Model, images: Images, tmp_path: Path) -> Callable[..., Artifact]:
    def write(of: Model = model, **quant: Any) -> Artifact:
        asked = replace(of, quant=QuantSpec(**quant))
        return TFLite().export(asked, tmp_path / "out.tflite", ExportContext(images(of)))

    return write


def kinds(artifact: Artifact) -> Counter[str]:
    return Counter(operator.kind for operator in tflite_file.read(artifact.path).operators)


def answers(artifact: Artifact, data: Any) -> np.ndarray[Any, Any]:
    runner = Interpreter(model_path=str(artifact.path)).get_signature_runner("serving_default")
    (detail,), (result,) = runner.get_input_details().values(), runner.get_output_details().values()
    rows = []
    for example in data.arrays():
        scale, zero = detail["quantization"]
        image = example["image"]
        if scale:
            bounds = np.iinfo(detail["dtype"])
            image = np.clip(np.round(image / scale) + zero, bounds.min, bounds.max).astype(detail["dtype"])
        (scores,) = runner(image=image).values()
        scale, zero = result["quantization"]
        rows.append((scores.astype("float32") - zero) * scale if scale else scores)
    return np.concatenate(rows)


@pytest.mark.parametrize(
    ("quant", "steps"),
    [
        ({"scheme": "int8"}, 8 / 256),
        ({"scheme": "int8", "io": "int8"}, 8 / 256),
        ({"scheme": "int8", "io": "uint8", "granularity": "per_tensor"}, 12 / 256),
        ({"scheme": "int16x8"}, 4 / 256),
        ({"scheme": "int16x8", "io": "int16"}, 4 / 256),
        ({"scheme": "weight_int8"}, 4 / 256),
        ({"scheme": "weight_int8", "granularity": "per_tensor"}, 4 / 256),
    ],
)
def test_file_is_as_asked_and_answers_as_the_model_does(
    export: Callable[..., Artifact], model: Model, images: Images, quant: dict[str, str], steps: float
) -> None:
    artifact = export(**quant)
    (image,), (scores,) = artifact.signature.inputs, artifact.signature.outputs
    assert (image.dtype, scores.dtype) == (quant.get("io", "float32"),) * 2
    assert tflite_scan.scheme_of(tflite_file.read(artifact.path)) == quant["scheme"]
    data = images(model)
    expected = np.concatenate([model.graph(example["image"]) for example in data.arrays()])
    assert np.abs(answers(artifact, data) - expected).max() <= steps
    assert artifact.notes[0].startswith("written by ai-edge-quantizer")


CONVERTER, QUANTIZER = "TensorFlow's converter", "ai-edge-quantizer"


@pytest.mark.parametrize(
    ("scheme", "backend", "writer"),
    [
        ("float16", "auto", CONVERTER),
        ("float16", "ai-edge-quantizer", QUANTIZER),
        ("dynamic", "ai-edge-quantizer", QUANTIZER),  # by the converter: test_tflite, where a layer is large enough
        ("int8", "tensorflow", CONVERTER),
    ],
)
def test_first_note_says_which_backend_wrote_the_file(
    export: Callable[..., Artifact], scheme: str, backend: str, writer: str
) -> None:
    first, *others = export(scheme=scheme, backend=backend).notes
    assert first.startswith(f"written by {writer}")
    assert not any("written by" in note for note in others)


def test_int8_file_has_the_operators_of_the_converters_own(export: Callable[..., Artifact]) -> None:
    ours, theirs = kinds(export(scheme="int8")), kinds(export(scheme="int8", backend="tensorflow"))
    assert ours == theirs
    assert ours["QUANTIZE"] == ours["DEQUANTIZE"] == 1


def test_ranges_are_the_models_own_and_not_the_images(model: Model, export: Callable[..., Artifact]) -> None:
    """A range set by hand is in the file: scale (6 + 2) / 255, zero point -128 + 2 / scale."""
    assert model.statistics is not None
    name = "shortcut"
    found = dict(model.statistics.ranges)
    found[name] = replace(found[name], low=-2.0, high=6.0, how="learned")
    changed = replace(model, statistics=replace(model.statistics, ranges=found))
    file = tflite_file.read(export(changed, scheme="int8").path)
    hits = [t for op in file.operators for t in op.outputs if t.scales and abs(t.scales[0] - 8 / 255) < 1e-8]
    assert [(t.zero_points, t.shape[-1]) for t in hits] == [((-64,), 12)]


def test_joined_and_passed_on_tensors_have_one_encoding(export: Callable[..., Artifact]) -> None:
    for scheme in ("int8", "int16x8"):
        file = tflite_file.read(export(scheme=scheme).path)
        (join,) = [operator for operator in file.operators if operator.kind == "CONCATENATION"]
        (pool,) = [operator for operator in file.operators if operator.kind == "MAX_POOL_2D"]
        tensors = [t for op in (join, pool) for t in (*op.inputs, *op.outputs) if t]
        assert len({(t.scales, t.zero_points) for t in tensors}) == 1


def test_layer_in_float_has_changes_of_type_around_it_alone(export: Callable[..., Artifact]) -> None:
    artifact = export(scheme="int8", io="int8", layers=(("shortcut", "float32"),))
    file = tflite_file.read(artifact.path)
    floats = [op for op in file.operators if op.outputs[0].dtype == "float32" and op.kind != "DEQUANTIZE"]
    assert [operator.kind for operator in floats] == ["CONV_2D"]
    assert [t.dtype for t in floats[0].inputs if t] == ["float32"] * 3
    counts = kinds(artifact)
    assert (counts["DEQUANTIZE"], counts["QUANTIZE"]) == (1, 1)


@pytest.mark.parametrize("layer", ["separable", "gate", "left", "rescale", "classes", "stem", "excite"])
@pytest.mark.parametrize("scheme", ["float32", "int16x8", "weight_int8", "float16", "dynamic"])
def test_layer_takes_a_scheme_of_its_own(
    export: Callable[..., Artifact], model: Model, images: Images, layer: str, scheme: str
) -> None:
    artifact = export(scheme="int8", layers=((layer, scheme),))
    data = images(model)
    expected = np.concatenate([model.graph(example["image"]) for example in data.arrays()])
    assert np.abs(answers(artifact, data) - expected).max() <= 8 / 256
    wanted = "int16" if scheme == "int16x8" else "float32"
    ends = {id(tensor) for _, tensor in tflite_file.read(artifact.path).inputs}
    inner = [op for op in tflite_file.read(artifact.path).operators if op.kind not in ("QUANTIZE", "DEQUANTIZE")]
    assert wanted in {t.dtype for op in inner for t in op.outputs if id(t) not in ends}


def test_whole_scheme_without_ranges_takes_other_layers_too(export: Callable[..., Artifact]) -> None:
    file = tflite_file.read(export(scheme="weight_int8", layers=(("stem", "float16"), ("classes", "float32"))).path)
    stored = Counter(t.dtype for op in file.operators if op.kind == "DEQUANTIZE" for t in op.inputs if t)
    assert stored == {"int8": 6, "float16": 1}


def test_layers_that_are_one_operator_cannot_differ(export: Callable[..., Artifact]) -> None:
    with pytest.raises(UnsupportedError, match=r"^stem: is one operator with stem_relu, which is to be float32"):
        export(scheme="int8", layers=(("stem_relu", "float32"), ("stem", "int16x8")))


def test_layer_that_is_not_there_is_an_input_error(export: Callable[..., Artifact]) -> None:
    for name in ("nothing", "stem_bn"):
        with pytest.raises(InputError, match=f"no layer of the quantized form is called '{name}'"):
            export(scheme="int8", layers=((name, "float32"),))


def test_int4_is_refused_by_layer_where_no_kernel_has_it(export: Callable[..., Artifact]) -> None:
    with pytest.raises(UnsupportedError, match=r"^right: DEPTHWISE_CONV_2D has no weight_int4 form"):
        export(scheme="weight_int4")
    artifact = export(scheme="weight_int4", allow_float=True)
    assert {note.split(":")[0] for note in artifact.notes[1:]} == {"right", "separable"}
    file = tflite_file.read(artifact.path)
    stored = Counter(t.dtype for op in file.operators if op.kind == "DEQUANTIZE" for t in op.inputs if t)
    assert stored["int4"] == 6
    values = [t.data for op in file.operators for t in op.inputs if t and t.dtype == "int4" and t.data is not None]
    assert {int(np.abs(data).max()) for data in values} == {7}


def test_operator_the_quantizer_lacks_goes_to_the_converter_or_is_named(
    plain_with: Callable[..., Model], images: Images, export: Callable[..., Artifact]
) -> None:
    plain = plain_with(L.LeakyReLU(negative_slope=0.1, name="leaky"))
    odd = with_ranges(plain, images(plain))
    artifact = export(odd, scheme="int8")
    assert "ai-edge-quantizer lacks leaky: LEAKY_RELU" in artifact.notes[0]
    with pytest.raises(UnsupportedError, match=r"^leaky: LEAKY_RELU has no int8 form"):
        export(odd, scheme="int8", backend="ai-edge-quantizer")
    artifact = export(odd, scheme="int8", allow_float=True)
    assert artifact.notes[1] == "leaky: LEAKY_RELU stays float32 (it has no int8 form)"
    assert odd.statistics is not None
    learned = {name: replace(found, how="learned") for name, found in odd.statistics.ranges.items()}
    with pytest.raises(UnsupportedError, match=r"^leaky: LEAKY_RELU has no int8 form"):
        export(replace(odd, statistics=replace(odd.statistics, ranges=learned)), scheme="int8")


def test_channels_without_weights_keep_their_bias(
    plain_with: Callable[..., Model], images: Images, export: Callable[..., Artifact]
) -> None:
    """A channel of zero weights has the scale 1e-9 / 127 by itself, in which no bias fits 32 bits."""
    plain = plain_with(L.Conv2D(3, 1, name="dead"))
    layer = plain.graph.get_layer("dead")
    kernel, bias = layer.get_weights()
    kernel[..., 1] = 0
    bias[:] = (0.1, -0.7, 0.2)
    layer.set_weights([kernel, bias])
    data = images(plain)
    artifact = export(with_ranges(plain, data), scheme="int8")
    assert any(note.startswith("dead: 1 channels next to 0 have a coarser weight scale") for note in artifact.notes)
    expected = np.concatenate([plain.graph(example["image"]) for example in data.arrays()])
    span = float(np.ptp(expected))
    assert np.abs(answers(artifact, data) - expected).max() <= 6 * span / 255


def test_outputs_that_are_always_zero_are_written(
    plain_with: Callable[..., Model], images: Images, export: Callable[..., Artifact]
) -> None:
    plain = plain_with(
        L.Conv2D(3, 1, activation="relu", bias_initializer=keras.initializers.Constant(-50.0), name="off")
    )
    plain.graph.get_layer("off").bias.assign([-50.0] * 3)
    artifact = export(with_ranges(plain, images(plain)), scheme="int8")
    assert any("off: its range was widened" in note for note in artifact.notes)


@pytest.mark.parametrize("scheme", ["int8", "int16x8"])
def test_average_of_a_whole_image_has_a_scale_of_its_own(
    images: Images, export: Callable[..., Artifact], scheme: str
) -> None:
    """A place of 0..1 in 255 steps; averages up to 0.2 in as many, or in 32,767 of 16 bits."""
    image = keras.Input((*SIZE, 3), name="image")
    x = L.Flatten(name="flat")(L.AveragePooling2D(SIZE, name="pool")(L.AveragePooling2D(1, name="part")(image)))
    plain = as_model(keras.Model(image, L.Dense(2, name="head")(x), name="net"))
    names = {"image": (0.0, 1.0), "pool": (0.0, 0.2), "head": (-1.0, 1.0)}
    found = {name: TensorRange(*ends, "learned") for name, ends in names.items()}
    artifact = export(replace(plain, statistics=Statistics(found, 1)), scheme=scheme)
    by_kind = {operator.kind: operator for operator in tflite_file.read(artifact.path).operators}
    steps = 255 if scheme == "int8" else 32767
    (part,), (mean,) = (by_kind[kind].outputs for kind in ("AVERAGE_POOL_2D", "MEAN"))
    assert part.scales == pytest.approx((1 / steps,))  # that of the image
    assert mean.scales == pytest.approx((0.2 / steps,))
    assert by_kind["FULLY_CONNECTED"].inputs[0].scales == mean.scales


def test_sixteen_bit_sums_of_powers_of_two_run(images: Images, export: Callable[..., Artifact]) -> None:
    """2 / 32767 + 1 / 32767: scales that LiteRT takes for powers of two, of which it adds only some."""
    image = keras.Input((*SIZE, 3), name="image")
    x = L.Rescaling(2.0, offset=-1.0, name="rescale")(image)
    x = L.GlobalAveragePooling2D(name="gap")(x)
    plain = as_model(keras.Model(image, x, name="sums"), outputs=("means",))
    found = with_ranges(plain, images(plain))
    artifact = export(found, scheme="int16x8")
    expected = np.concatenate([plain.graph(example["image"]) for example in images(plain).arrays()])
    assert np.abs(answers(artifact, images(plain)) - expected).max() <= 1e-3


def test_requests_no_file_honours_are_refused_before_any_work() -> None:
    cases = (
        ({"scheme": "int8", "flavour": "symmetric"}, "asymmetric"),
        ({"scheme": "int8", "io": "int16"}, "need scheme int16x8"),
        ({"scheme": "int16x8", "io": "int8"}, "need scheme int8"),
        ({"scheme": "weight_int4", "backend": "tensorflow"}, "has no scheme weight_int4"),
        ({"scheme": "int8", "backend": "tensorflow", "ranges": "mse"}, "not by mse"),
        ({"scheme": "int8", "backend": "tensorflow", "layers": (("a", "float32"),)}, "all layers alike"),
        ({"scheme": "dynamic", "layers": (("a", "int8"),)}, "need ranges"),
        ({"scheme": "float32", "layers": (("a", "float16"),)}, "the rest has none"),
    )
    for quant, words in cases:
        assert words in (TFLite().refusal(QuantSpec(**quant)) or ""), quant  # type: ignore[arg-type]
    assert "no schemes of their own" in (
        TFLite().refusal(QuantSpec("int8", layers=(("a", "float32"),)), "tflite") or ""
    )
    assert TFLite().refusal(QuantSpec("int16x8", flavour="symmetric", io="int16")) is None
    assert "no 16-bit form" in (TFLite(embed_preprocessing=True).refusal(QuantSpec("int16x8")) or "")


def test_pixels_go_in_front_of_a_file_with_the_models_ranges(model: Model, images: Images, tmp_path: Path) -> None:
    asked = replace(model, quant=QuantSpec("int8"))
    artifact = TFLite(embed_preprocessing=True).export(asked, tmp_path / "pixels.tflite", ExportContext(images(model)))
    assert artifact.pixels
    assert artifact.signature.inputs[0].dtype == "uint8"


def test_same_model_gives_the_same_bytes(export: Callable[..., Artifact]) -> None:
    for quant in ({"scheme": "int8"}, {"scheme": "weight_int8"}, {"scheme": "int8", "layers": (("gate", "float32"),)}):
        assert export(**quant).sha256 == export(**quant).sha256


def test_layers_of_the_same_values_have_their_own_ranges(images: Images, tmp_path: Path) -> None:
    """A sum of what is above 0 and the ReLU behind it cannot be told apart by values; their ranges differ here."""
    image = keras.Input((*SIZE, 3), name="image")
    branches = [L.Conv2D(6, 1, activation="relu", name=name)(image) for name in ("one", "two")]
    total = L.Add(name="sum")(branches)
    ends = [L.Conv2D(4, 1, name="left")(total), L.Conv2D(4, 1, name="right")(L.ReLU(name="after")(total))]
    x = L.GlobalAveragePooling2D(name="gap")(L.Add(name="again")(ends))
    plain = as_model(scatter(keras.Model(image, L.Dense(5, activation="softmax", name="classes")(x))))
    model = with_ranges(plain, images(plain))
    assert model.statistics is not None
    ranges = {**model.statistics.ranges, "sum": TensorRange(0, 51.0, "x"), "after": TensorRange(0, 25.5, "x")}
    asked = replace(model, statistics=Statistics(ranges, 4), quant=QuantSpec("int8"))
    artifact = TFLite().export(asked, tmp_path / "out.tflite", ExportContext())
    operators = tflite_file.read(artifact.path).operators
    scales = {op.kind: float(op.outputs[0].scales[0]) for op in reversed(operators) if op.kind in ("ADD", "RELU")}
    assert scales == {"ADD": pytest.approx(0.2), "RELU": pytest.approx(0.1)}
