"""The same image file is the same tensor everywhere: Keras' batches, LiteRT, ONNX Runtime, the sample program.

The files are identities: what they give back is what they were given. TensorFlow's own decoder and resizing are the
independent witness of how far another decoder may be away.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.core import Artifact, Dataset, ExportContext, Model, Preprocessing, QuantSpec, Signature, TensorSpec
from toolkit.datasets.images import decode
from toolkit.datasets.preprocess import PreprocessSpec, geometry
from toolkit.sample_code import sample_code

SIZE = (24, 32)
CONTRACTS = {
    "signed": PreprocessSpec(preset="signed"),
    "share": PreprocessSpec(preset="imagenet", crop_share=0.875, resize="bicubic"),
    "stretched": PreprocessSpec(preset="caffe", crop="none", resize="lanczos"),
    "sampled": PreprocessSpec(scale=1 / 255, antialias=False, crop="none"),
    "cubic": PreprocessSpec(preset="unit", antialias=False, resize="bicubic", crop_share=0.9),
    "nearest": PreprocessSpec(preset="raw", resize="nearest", color="bgr"),
    "gray": PreprocessSpec(preset="unit", color="gray"),
}
SHAPES = {  # height and width: larger, smaller, much wider, exactly the input's
    "large.jpg": (97, 131),
    "small.png": (9, 14),
    "wide.png": (20, 90),
    "gray.png": (50, 41),
    "gray.jpg": (60, 80),
    "palette.png": (33, 33),
    "alpha.png": (40, 24),
    "exact.jpg": SIZE,
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Image files of all kinds: waves with an edge and a little noise, as photographs have them."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("pictures") / "all" / "a"
    folder.mkdir(parents=True)
    rng = np.random.default_rng(3)
    for name, (height, width) in SHAPES.items():
        rows, columns = np.mgrid[0:height, 0:width] / max(height, width) * 9
        waves = np.stack([125 + 80 * np.sin(rows + i) * np.cos(columns * (1 + i / 3)) for i in range(3)], -1)
        waves[height // 3 : height // 2] += 40
        pixels = np.clip(waves + rng.normal(0, 4, waves.shape), 0, 255).astype(np.uint8)
        image = Image.fromarray(pixels)
        form = {"gray.png": "L", "gray.jpg": "L", "palette.png": "P", "alpha.png": "RGBA"}.get(name, "RGB")
        image.convert(form).save(folder / name, **({"quality": 90} if name.endswith("jpg") else {}))
    return sorted(folder.iterdir())


@dataclass(frozen=True)
class Identity:
    """A network that gives back what it gets, and its files by name."""

    keras: Any
    signature: Signature
    files: Mapping[str, Artifact]


@pytest.fixture(scope="module", params=[3, 1], ids=["color", "gray"])
def identity(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Identity:
    """As float .tflite, as .onnx with channels last and with channels first."""
    import keras

    from toolkit.exporters.onnx import ONNX
    from toolkit.exporters.tflite import TFLite

    shape = (*SIZE, request.param)
    image = keras.Input(shape, name="image")
    graph = keras.Model(image, keras.layers.Flatten(name="same")(image))
    signature = Signature(
        (TensorSpec("image", (None, *shape), "float32", "image", "NHWC"),),
        (TensorSpec("same", (None, int(np.prod(shape))), "float32", "embedding"),),
    )
    model, folder = Model("keras", graph, signature), tmp_path_factory.mktemp("identity")
    exporters = {"f.tflite": TFLite(), "last.onnx": ONNX(layout="NHWC"), "first.onnx": ONNX(layout="NCHW")}
    files = {
        name: replace(exporter.export(model, folder / name, ExportContext()), name=name)
        for name, exporter in exporters.items()
    }
    quantized = replace(model, quant=QuantSpec("int8", io="uint8"))
    ramp = ExportContext(Ramp(shape))
    files["q.tflite"] = replace(TFLite().export(quantized, folder / "q.tflite", ramp), name="q.tflite")
    return Identity(graph, signature, files)


class Ramp:
    """Calibration images that span -130..255."""

    name, fingerprint, classes, labels, task, ids = "ramp", "", ("a",), np.zeros(8, np.int64), "classes", ("",) * 8

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def __len__(self) -> int:
        return 8

    def batches(self, size: int) -> Iterator[Any]:
        from toolkit.core import Batch

        for i in range(8):
            yield Batch({"image": np.full((1, *self.shape), -130 + 55 * i, np.float32)}, {}, (str(i),))


def split(pictures: list[Path], contract: Preprocessing) -> Any:
    """The folder of pictures, as a recipe's data gives it."""
    from toolkit.datasets.folder import Folder
    from toolkit.datasets.stream import Split

    records = Folder(path=pictures[0].parent.parent).load()
    return Split("test", records, range(len(records)), contract)


def answers(artifact: Artifact, data: Dataset, folder: Path) -> Any:
    """What the worker got for each image, as the file gives it back."""
    from toolkit.checks import inference
    from toolkit.devices import load_device, open_session

    specs = [TensorSpec("image", (None,), "float32", "image", "NHWC")]
    prepared = inference.prepare(data, specs, folder / "inputs").paths
    runtime, delegate = ("litert", "none") if artifact.format == "tflite" else ("onnxruntime", "cpu")
    with closing(open_session(load_device("this-machine"))) as session:
        found = inference.run(
            artifact,
            session,
            runtime=runtime,
            delegate=delegate,
            prepared=prepared,
            folder=folder / artifact.name,
            threads=1,
        )
    return found.outputs["same"]


def program(artifact: Artifact, contract: Preprocessing) -> Any:
    """The sample program of a file, imported."""
    path = artifact.path.with_name(f"{artifact.name}.py")
    path.write_text(sample_code(artifact, contract, ("a",)))
    return imported(path)


def imported(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location("sample", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def contracts_for(identity: Identity) -> dict[str, Preprocessing]:
    channels = identity.keras.input_shape[-1]
    named = {name: spec for name, spec in CONTRACTS.items() if (name == "gray") == (channels == 1)}
    return {name: spec.resolve((None, *SIZE, channels)) for name, spec in named.items()}


def test_every_path_gives_the_same_tensor(identity: Identity, pictures: list[Path], tmp_path: Path) -> None:
    """Exactly: one decoder, one resizing, and float32 arithmetic in one order."""
    for name, contract in contracts_for(identity).items():
        data = split(pictures, contract)
        batch = next(iter(data.batches(64)))
        assert [Path(each).name for each in batch.ids] == [path.name for path in pictures]
        wanted = batch.inputs["image"].reshape(len(pictures), -1)
        assert len(np.unique(wanted.round(3))) > 100, name
        assert np.array_equal(identity.keras.predict(batch.inputs["image"], verbose=0), wanted), name
        for file, artifact in identity.files.items():
            if file == "q.tflite":
                continue
            assert np.array_equal(answers(artifact, data, tmp_path / name), wanted), (name, file)
            preprocess = program(artifact, contract).preprocess
            for path, row in zip(pictures, batch.inputs["image"], strict=True):
                tensor = preprocess(path)[0]
                if file == "first.onnx":
                    tensor = tensor.transpose(1, 2, 0)
                assert tensor.dtype == np.float32
                assert np.array_equal(tensor, row), (name, file, path.name)


def test_integer_input_gets_the_same_steps(identity: Identity, pictures: list[Path], tmp_path: Path) -> None:
    """The file's input is uint8 with a scale: the worker's steps, given back, and the program's are the same."""
    artifact = identity.files["q.tflite"]
    for name, contract in contracts_for(identity).items():
        found = answers(artifact, split(pictures, contract), tmp_path / name)
        module = program(artifact, contract)
        for path, row in zip(pictures, found, strict=True):
            steps = module.preprocess(path)
            assert steps.dtype == np.uint8
            real = (steps.astype(np.float32) - module.ZERO_POINT) * np.float32(module.SCALE)
            assert np.array_equal(real.ravel(), row), (name, path.name)


@pytest.mark.parametrize("name", ["p.tflite", "pq.tflite", "p.onnx"])
def test_file_that_takes_pixels_gets_them_from_the_program(
    identity: Identity, pictures: list[Path], tmp_path: Path, name: str
) -> None:
    """The program gives what `Split.pixels` gives, and the network behind the intake sees what Keras sees."""
    from toolkit import beside
    from toolkit.contract import make_origin, read_contract_file
    from toolkit.exporters.onnx import ONNX
    from toolkit.exporters.tflite import TFLite

    channels = identity.keras.input_shape[-1]
    contract = contracts_for(identity)["gray" if channels == 1 else "stretched"]  # caffe: bgr, and an offset a channel
    quant = QuantSpec("int8" if name == "pq.tflite" else "float32")
    model = Model("keras", identity.keras, identity.signature, contract, quant)
    data = split(pictures, contract)
    exporter = ONNX(layout="NCHW", embed_preprocessing=True) if name == "p.onnx" else TFLite(embed_preprocessing=True)
    artifact = replace(exporter.export(model, tmp_path / name, ExportContext(data)), name=name)
    assert artifact.pixels
    beside.write(artifact, contract, ("a",), make_origin(artifact, "r", "", {}))
    stated = read_contract_file(beside.paths(artifact.path)[0])
    assert (stated.inputs[0].dtype, stated.inputs[0].quantization) == ("uint8", None)
    assert (stated.preprocessing.scale, stated.preprocessing.color) == ((1.0,), "gray" if channels == 1 else "rgb")
    module = imported(beside.paths(artifact.path)[1])
    plain, wanted = (next(iter(each.batches(64))).inputs["image"] for each in (data.pixels(), data))
    for path, pixels, row in zip(pictures, plain, wanted, strict=True):
        tensor = module.preprocess(path)
        assert tensor.dtype == np.uint8
        assert np.array_equal(tensor[0].transpose(1, 2, 0) if name == "p.onnx" else tensor[0], pixels), path.name
        step = np.ptp(wanted) / 255 if name == "pq.tflite" else 1e-4  # int8 inside: one step of its range
        assert np.abs(module.answer(tensor) - row.ravel()).max() <= step, path.name


def test_tensorflows_decoder_gives_the_same_pixels(pictures: list[Path]) -> None:
    """Same libjpeg-turbo, same DCT (INTEGER_ACCURATE is islow): the same pixels. PNG has one reading only."""
    import tensorflow as tf

    for path in pictures:
        if path.name in ("palette.png", "alpha.png"):  # TensorFlow would keep the alpha, and resolves no palette alike
            continue
        content = path.read_bytes()
        own = decode(content, path.name)
        if path.suffix == ".jpg":
            theirs = tf.io.decode_jpeg(content, dct_method="INTEGER_ACCURATE").numpy()
        else:
            theirs = tf.io.decode_png(content).numpy()
        assert own.shape == theirs.shape
        assert np.array_equal(own, theirs), path.name


def test_tensorflows_fast_dct_is_another_decoder(pictures: list[Path]) -> None:
    """Its default: docs/contract.md warns of it, with what was measured."""
    import tensorflow as tf

    content = next(path for path in pictures if path.name == "large.jpg").read_bytes()
    fast = tf.io.decode_jpeg(content, dct_method="INTEGER_FAST").numpy()
    assert np.array_equal(tf.io.decode_jpeg(content).numpy(), fast)
    assert 1 <= np.abs(decode(content, "large.jpg").astype(int) - fast).max() <= 8


@pytest.mark.parametrize("resize", ["bilinear", "bicubic", "lanczos"])
def test_tensorflows_decode_and_resize_are_at_most_this_far_away(pictures: list[Path], resize: str) -> None:
    """tf.image.resize(antialias=True) of what tf.io.decode_jpeg gives, in float: Pillow rounds twice, to 8 bits."""
    import tensorflow as tf

    contract = Preprocessing(size=SIZE, crop="none", resize=resize)  # type: ignore[arg-type]
    for path in pictures:
        if path.suffix != ".jpg":
            continue
        content = path.read_bytes()
        own = geometry(decode(content, path.name), contract).astype(np.float32)
        decoded = tf.io.decode_jpeg(content, dct_method="INTEGER_ACCURATE", channels=3)
        method = "lanczos3" if resize == "lanczos" else resize
        theirs = tf.image.resize(decoded, SIZE, method=method, antialias=True).numpy()
        assert np.abs(own - np.clip(theirs, 0, 255)).max() <= 1, path.name  # 1/255; measured: 0.92
