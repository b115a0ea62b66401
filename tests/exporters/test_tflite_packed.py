"""Packed .tflite files against the dense ones they are made of: the same outputs, bit for bit, under every kernel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tests.sparse_net import Net
from toolkit.compat import tflite_operators
from toolkit.core import ExportContext, Model, QuantSpec, Signature, TensorSpec
from toolkit.errors import InputError, UnsupportedError
from toolkit.exporters import file_cost, tflite_file, tflite_packed
from toolkit.exporters.tflite import TFLite

keras = pytest.importorskip("keras")
L = keras.layers
Images = Callable[..., Any]
RESOLVERS = (OpResolverType.AUTO, OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, OpResolverType.BUILTIN_REF)
SHARE = 0.9


@pytest.fixture(scope="module")
def sparse_model() -> Model:
    """One of each operator whose weights are packed, nine weights of ten zero, the last layer's all there."""
    keras.utils.set_random_seed(0)
    image = keras.Input((8, 6, 16), name="image")
    x = L.Conv2D(32, 3, padding="same", activation="relu", name="conv")(image)
    x = L.DepthwiseConv2D(3, padding="same", name="each")(x)
    x = L.Conv2DTranspose(24, 3, strides=2, name="up")(x)
    x = L.GlobalAveragePooling2D(name="gap")(x)
    x = L.Dense(64, activation="relu", name="hidden")(x)
    graph = keras.Model(image, L.Dense(5, activation="softmax", name="classes")(x))
    rng = np.random.default_rng(0)
    for layer in graph.layers[:-1]:
        if layer.weights:
            kernel, bias = layer.get_weights()
            layer.set_weights([np.where(rng.uniform(size=kernel.shape) < SHARE, 0, kernel), bias + 0.1])
    ends = TensorSpec("image", (None, 8, 6, 16), "float32", "image", "NHWC"), TensorSpec("scores", (None, 5), "float32")
    return Model("keras", graph, Signature((ends[0],), (replace(ends[1], meaning="softmax"),)))


@pytest.fixture(scope="module")
def written(sparse_model: Model, images: Images, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """written(scheme): (dense artifact, packed artifact), each written once."""
    folder, made = tmp_path_factory.mktemp("packed"), {}

    def write(scheme: str) -> Any:
        if scheme not in made:
            made[scheme] = tuple(
                export(sparse_model, folder / f"{scheme}-{packed}.tflite", images(sparse_model), scheme, packed=packed)
                for packed in (False, True)
            )
        return made[scheme]

    return write


def export(model: Model, path: Path, data: Any, scheme: str, *, packed: bool = True) -> Any:
    asked = replace(model, quant=QuantSpec(scheme=scheme))  # type: ignore[arg-type]
    return TFLite(pack_sparse=packed).export(asked, path, ExportContext(data))


def outputs(path: Path, resolver: Any, images: Any) -> list[Any]:
    interpreter = Interpreter(model_path=str(path), num_threads=1, experimental_op_resolver_type=resolver)
    runner = interpreter.get_signature_runner("serving_default")
    return [runner(**example)["scores"] for example in images]


@pytest.mark.parametrize("scheme", ["float32", "float16", "int8", "int16x8", "weight_int8"])
def test_packed_file_computes_the_same_bits_and_is_smaller(
    sparse_model: Model, images: Images, written: Any, scheme: str
) -> None:
    dense, packed = written(scheme)
    examples = images(sparse_model).arrays()[:3]
    for resolver in RESOLVERS:
        expected = outputs(dense.path, resolver, examples)
        np.testing.assert_array_equal(outputs(packed.path, resolver, examples), expected)
        assert np.ptp(expected) > 0
    assert packed.size_bytes < 0.75 * dense.size_bytes
    assert "DENSIFY" in tflite_operators(packed.path)
    assert "DENSIFY" not in tflite_operators(dense.path)
    assert any("weights are packed" in note for note in packed.notes)


def test_what_reads_a_file_sees_the_dense_one(written: Any) -> None:
    for scheme in ("float32", "int8", "weight_int8"):
        dense, packed = written(scheme)
        assert tflite_file.canonical_hash(packed.path) == tflite_file.canonical_hash(dense.path)
        assert file_cost.tflite_count(packed.path) == file_cost.tflite_count(dense.path)
        files = tflite_file.read(dense.path), tflite_file.read(packed.path)
        assert [file.unpacking > 0 for file in files] == [False, True]
        sparse = [t for op in files[1].operators for t in op.inputs if t and t.sparse]
        assert len(sparse) == files[1].unpacking
        assert all(np.mean(tensor.data == 0) > 0.8 for tensor in sparse)


def test_unpacking_gives_the_dense_file_back(written: Any, tmp_path: Path) -> None:
    dense, packed = written("int8")
    path = tmp_path / "unpacked.tflite"
    path.write_bytes(tflite_packed.unpack(packed.path.read_bytes()))
    assert tflite_operators(path) == tflite_operators(dense.path)
    assert tflite_file.canonical_hash(path) == tflite_file.canonical_hash(dense.path)
    assert tflite_packed.unpack(dense.path.read_bytes()) == dense.path.read_bytes()


def test_int8_dense_layers_stay_dense_since_xnnpack_loads_no_others(written: Any) -> None:
    _, weights = tflite_packed.pack(written("int8")[0].path.read_bytes())
    assert all("hidden" not in weight.name and "classes" not in weight.name for weight in weights)
    assert sum(weight.after > 0 for weight in weights) == 3
    _, weights = tflite_packed.pack(written("float32")[0].path.read_bytes())
    assert {weight.name.split("/")[-2].removesuffix("_1"): weight.after > 0 for weight in weights}["hidden"]


def test_sizes_told_are_what_the_file_stores(written: Any) -> None:
    content = written("float32")[0].path.read_bytes()
    packed, weights = tflite_packed.pack(content)
    saved = sum(weight.before - weight.after for weight in weights if weight.after)
    assert len(content) - len(packed) == pytest.approx(saved, rel=0.05)
    conv = next(weight for weight in weights if "conv_1" in weight.name)
    assert (conv.before, conv.zeros) == (4 * 9 * 16 * 32, pytest.approx(SHARE, abs=0.02))


def test_packed_source_is_quantized_as_the_dense_one_is(written: Any, images: Images, sparse_model: Model) -> None:
    dense, packed = written("float32")
    made = []
    for artifact in (dense, packed):
        model = Model("tflite", artifact.path, sparse_model.signature)
        path = artifact.path.with_suffix(".again.tflite")
        made.append(export(model, path, images(sparse_model), "int8", packed=False))
    assert tflite_file.canonical_hash(made[0].path) == tflite_file.canonical_hash(made[1].path)
    model = Model("tflite", packed.path, sparse_model.signature)
    again = export(model, packed.path.with_suffix(".same.tflite"), None, "float32", packed=False)
    assert again.path.read_bytes() == packed.path.read_bytes()
    anew = export(model, packed.path.with_suffix(".anew.tflite"), None, "float32")
    assert anew.size_bytes == packed.size_bytes


def test_openvino_reads_a_packed_file(written: Any, images: Images, sparse_model: Model) -> None:
    openvino = pytest.importorskip("openvino", reason="the extra `openvino`")
    example = images(sparse_model).arrays()[0]["image"]
    for scheme in ("float32", "int8"):
        answers = [
            openvino.compile_model(openvino.Core().read_model(a.path), "CPU")([example]) for a in written(scheme)
        ]
        np.testing.assert_array_equal(*(next(iter(answer.values())) for answer in answers))


def test_file_that_would_not_get_smaller_is_refused(classifier_model: Model, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"no file gets smaller by it: \d\.\d% of what can be packed is zero"):
        export(classifier_model, tmp_path / "dense.tflite", None, "float32")
    assert not list(tmp_path.iterdir())


def test_network_that_xnnpack_would_compute_wrong_on_arm_is_refused() -> None:
    content = Net(0.9, same="always").content()
    with pytest.raises(UnsupportedError, match=r"compute it wrong on Arm: 't\d+' is depthwise, stride 2, padding SAME"):
        tflite_packed.pack(content)
    for same in ("never", "stride 1"):
        content = Net(0.9, same=same).content()  # type: ignore[arg-type]
        packed, _ = tflite_packed.pack(content)
        answers = []
        for each in (content, packed):
            runner = Interpreter(model_content=each, num_threads=1).get_signature_runner("serving_default")
            answers.append(runner(image=np.ones((1, 56, 56, 3), np.float32))["scores"])
        np.testing.assert_array_equal(*answers)


@pytest.mark.parametrize(("scheme", "words"), [("dynamic", "XNNPACK does not load"), ("weight_int4", "no 4-bit form")])
def test_schemes_that_cannot_be_packed_are_refused_before_any_work(scheme: str, words: str) -> None:
    quant = QuantSpec(scheme=scheme)  # type: ignore[arg-type]
    assert words in str(TFLite(pack_sparse=True).refusal(quant))
    assert TFLite().refusal(quant) is None


def test_microcontroller_has_no_kernel_for_a_packed_file(written: Any) -> None:
    from toolkit.estimates import micro

    with pytest.raises((UnsupportedError, InputError), match="no kernel for DENSIFY"):
        micro.needs(written("int8")[1].path)


def test_older_runtimes_are_asked_whether_they_unpack() -> None:
    assert TFLite(pack_sparse=True).operator_versions(QuantSpec())["DENSIFY"] == 1
    assert "DENSIFY" not in TFLite().operator_versions(QuantSpec())


def test_sparse_tensors_that_tensorflow_writes_are_read(sparse_model: Model, written: Any) -> None:
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(sparse_model.graph)
    converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    file = tflite_file.load(converter.convert())
    kernel = sparse_model.graph.get_layer("conv").kernel.numpy().transpose(3, 0, 1, 2)
    found = next(t for op in file.operators if op.kind == "CONV_2D" for t in op.inputs if t and t.shape == kernel.shape)
    assert found.sparse
    np.testing.assert_array_equal(found.data, kernel)
