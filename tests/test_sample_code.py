"""The program beside a delivered file decides as the worker did, on image files, for layouts and types that differ."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from toolkit.core import ExportContext, Preprocessing, QuantSpec
from toolkit.sample_code import sample_code


def decisions(program: Path, images: list[Path]) -> list[str]:
    """What the program prints for each image."""
    command = [sys.executable, program.name, *map(str, images)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=program.parent)
    return [line.rsplit(" ", 1)[1] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("name", ["int8.tflite", "int8.onnx"])
def test_program_of_a_run_decides_as_the_worker_did(finished: Any, judged: Any, tmp_path: Path, name: str) -> None:
    from PIL import Image

    images, _ = judged
    paths = [tmp_path / f"{i}.png" for i in range(20)]
    for path, image in zip(paths, images, strict=False):
        Image.fromarray(np.round(image[:, :, 0] * 16).astype(np.uint8)).save(path)
    with np.load(finished.folder / "samples" / f"{name}@this-machine.answers.npz") as answers:
        expected = [str(np.argmax(row)) for row in answers["classes"][:20]]
    assert decisions(finished.folder / "artifacts" / f"{name}.py", paths) == expected


@pytest.mark.parametrize(
    ("exporter", "options", "quant"),
    [
        ("onnx", {"layout": "NCHW"}, QuantSpec()),
        ("tflite", {}, QuantSpec("int8", io="uint8")),
        ("tflite", {}, QuantSpec("int8", io="int8")),
    ],
)
def test_program_follows_layout_size_color_and_integer_ends(
    tmp_path: Path, exporter: str, options: dict[str, Any], quant: QuantSpec
) -> None:
    """The class is the brightest quarter and channel of a picture that is neither square nor symmetric."""
    import keras
    from keras import layers
    from PIL import Image

    from toolkit import registry
    from toolkit.core import Model, Signature, TensorSpec

    image = keras.Input((4, 6, 3), name="image")
    kernel = np.zeros((72, 3), np.float32)
    for row, column, channel, label in ((0, 5, 0, 0), (3, 0, 2, 1), (1, 2, 1, 2)):
        kernel[(row * 6 + column) * 3 + channel, label] = 1.0
    dense = layers.Dense(3, name="y")
    graph = keras.Model(image, dense(layers.Flatten()(image)))
    dense.set_weights([kernel, np.zeros(3, np.float32)])
    contract = Preprocessing(size=(4, 6), color="bgr", scale=(1 / 255,), offset=(-0.25,))
    specs = (TensorSpec("image", (None, 4, 6, 3), "float32", "image", "NHWC"),)
    signature = Signature(specs, (TensorSpec("y", (None, 3), "float32", "logits"),))
    model = Model("keras", graph, signature, contract, quant)
    path = tmp_path / f"m.{exporter}"
    artifact = registry.load("exporters", exporter)(**options).export(model, path, ExportContext(Ramp()))
    program = tmp_path / "m.py"
    program.write_text(sample_code(replace(artifact, name=path.name), contract, ("right", "left", "middle")))
    # bgr: the model's channel 0 is blue. A bright blue corner is class 0, a bright red corner class 1
    paths = []
    for name, (row, column, color) in {"a": (0, 5, 2), "b": (3, 0, 0), "c": (1, 2, 1)}.items():
        pixels = np.zeros((4, 6, 3), np.uint8)
        pixels[row, column, color] = 255
        paths.append(tmp_path / f"{name}.png")
        Image.fromarray(pixels).save(paths[-1])
    assert decisions(program, paths) == ["right", "left", "middle"]


class Ramp:
    """Calibration images that span the input's range."""

    name, fingerprint, classes, labels = "ramp", "", ("a",), np.zeros(8, np.int64)

    def __len__(self) -> int:
        return 8

    def batches(self, size: int) -> Any:
        from toolkit.core import Batch

        for i in range(8):
            yield Batch({"image": np.full((1, 4, 6, 3), -0.25 + i / 7, np.float32)}, {}, (str(i),))


@dataclass(frozen=True)
class Head:
    """What a program prints for a file whose output is the mean of each channel, over 255."""

    meaning: str
    classes: tuple[str, ...]
    expected: list[str]
    columns: int = 3


HEADS = [
    # the pictures: means (0.2, 0.6, 0.8) and (0.6, 0.6, 0.2) of red, green and blue
    Head("softmax", ("r", "g", "b"), ["b", "r"]),  # of two equal scores the first
    Head("logits", ("r", "g", "b"), ["b", "r"]),
    Head("sigmoid", ("no", "yes"), ["no", "yes"], columns=1),
    Head("logits", ("no", "yes"), ["yes", "yes"], columns=1),
    Head("sigmoids", ("r", "g", "b"), ["g, b", "r, g"]),
    Head("regression", ("x", "y", "z"), ["x 0.2, y 0.6, z 0.8", "x 0.6, y 0.6, z 0.2"]),
    Head("embedding", ("r", "g", "b"), ["3 numbers", "3 numbers"]),
]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: f"{head.meaning}{head.columns}")
def test_program_prints_what_each_head_means(tmp_path: Path, head: Head, means_file: Path) -> None:
    from PIL import Image

    from toolkit.core import Artifact, Signature, TensorSpec

    one = TensorSpec("means", (1, head.columns), "float32", head.meaning)  # type: ignore[arg-type]
    signature = Signature((TensorSpec("image", (1, 2, 2, 3), "float32", "image", "NHWC"),), (one,))
    path = tmp_path / "m.onnx"
    path.write_bytes(means_file.read_bytes())
    artifact = Artifact("m.onnx", path, "onnx", "float32", 1, "", signature)
    program = tmp_path / "m.onnx.py"
    program.write_text(sample_code(artifact, Preprocessing(size=(2, 2), scale=(1 / 255,)), head.classes))
    pictures = [tmp_path / "a.png", tmp_path / "b.png"]
    for picture, color in zip(pictures, ((51, 153, 204), (153, 153, 51)), strict=True):
        Image.new("RGB", (5, 5), color).save(picture)
    command = [sys.executable, str(program), *map(str, pictures)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/").stdout.splitlines()
    assert lines[:2] == [f"{picture} {text}" for picture, text in zip(pictures, head.expected, strict=True)]
    if head.meaning == "embedding":
        dot = 0.2 * 0.6 + 0.6 * 0.6 + 0.8 * 0.2
        length = (0.04 + 0.36 + 0.64) ** 0.5 * (0.36 + 0.36 + 0.04) ** 0.5
        assert float(lines[2].removeprefix("cosine ")) == pytest.approx(dot / length, abs=1e-6)
    else:
        assert len(lines) == 2


@pytest.fixture(scope="module")
def means_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An .onnx file that gives the mean of each channel."""
    import onnx
    from onnx import TensorProto, helper

    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 2, 2, 3])
    means = helper.make_tensor_value_info("means", TensorProto.FLOAT, [1, 3])
    node = helper.make_node("ReduceMean", ["image"], ["means"], axes=[1, 2], keepdims=0)
    graph = helper.make_graph([node], "means", [image], [means])
    path = tmp_path_factory.mktemp("means") / "means.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_program_refuses_deep_images_in_one_line(tmp_path: Path, means_file: Path) -> None:
    from PIL import Image

    from toolkit.inspection import read_artifact

    program = tmp_path / "means.py"
    program.write_text(sample_code(read_artifact(means_file), Preprocessing(), ("r", "g", "b")))
    (tmp_path / "means.onnx").write_bytes(means_file.read_bytes())
    Image.fromarray(np.full((2, 2), 40000, np.uint16)).save(tmp_path / "deep.png")
    command = [sys.executable, str(program), str(tmp_path / "deep.png")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "more than 8 bits" in done.stderr
    bare = subprocess.run(command[:2], check=False, capture_output=True, text=True)
    assert bare.returncode == 1 and "IMAGE..." in bare.stderr  # how to use it, where nothing was given


def test_program_for_openvino_decides_as_that_for_onnxruntime(tmp_path: Path, means_file: Path) -> None:
    pytest.importorskip("openvino")
    from PIL import Image

    from toolkit.inspection import read_artifact

    (tmp_path / "means.onnx").write_bytes(means_file.read_bytes())
    artifact = read_artifact(tmp_path / "means.onnx")
    pictures = [tmp_path / "a.png", tmp_path / "b.png"]
    for picture, color in zip(pictures, ((51, 153, 204), (153, 100, 51)), strict=True):
        Image.new("RGB", (2, 2), color).save(picture)
    for runtime in ("onnxruntime", "openvino"):
        program = tmp_path / f"{runtime}_example.py"
        program.write_text(sample_code(artifact, Preprocessing(size=(2, 2)), ("r", "g", "b"), runtime=runtime))
        assert decisions(program, pictures) == ["b", "r"]


def test_programs_for_the_other_runtimes_of_a_tflite_file_decide_alike(finished: Any, tmp_path: Path) -> None:
    """tflite-runtime's own program runs with LiteRT in its place, where that is not installed."""
    from PIL import Image

    from toolkit.contract import read_contract_file
    from toolkit.sample_code import runtimes_of

    record = next(record for record in finished.manifest.artifacts if record.name == "float.tflite")
    artifact = record.artifact(finished.folder)
    contract = read_contract_file(artifact.path.with_name("float.tflite.json"))
    preprocessing = contract.preprocess().resolve((1, 8, 8, 1))
    (tmp_path / "float.tflite").write_bytes(artifact.path.read_bytes())
    (tmp_path / "tflite_runtime").mkdir()
    (tmp_path / "tflite_runtime" / "__init__.py").write_text("")
    (tmp_path / "tflite_runtime" / "interpreter.py").write_text("from ai_edge_litert.interpreter import Interpreter\n")
    noise = np.random.default_rng(0)
    pictures = [tmp_path / f"{i}.png" for i in range(6)]
    for picture in pictures:
        Image.fromarray(noise.integers(0, 256, (8, 8), np.uint8)).save(picture)
    found = {}
    for runtime in runtimes_of(artifact):
        program = tmp_path / f"{runtime.replace('-', '_')}_example.py"
        text = sample_code(artifact, preprocessing, contract.classes, runtime=runtime, program=program.name)
        assert f"`python {program.name} IMAGE...`" in text
        program.write_text(text)
        try:
            __import__("openvino" if runtime == "openvino" else "numpy")
        except ImportError:
            continue
        found[runtime] = decisions(program, pictures)
    assert {"litert", "tflite-runtime"} <= set(found)
    assert set(map(tuple, found.values())) == {tuple(found["litert"])}


def test_openvino_gets_no_program_for_a_file_that_it_does_not_read() -> None:
    from toolkit.core import Artifact, Scheme, Signature, TensorSpec
    from toolkit.sample_code import runtimes_of

    def able(format: str, scheme: Scheme, dtype: str = "float32", *, pixels: bool = False) -> bool:
        image = TensorSpec("image", (1, 2, 2, 3), dtype, "image", "NHWC")
        signature = Signature((image,), (TensorSpec("y", (1, 3), "float32", "logits"),))
        artifact = Artifact("m", Path("m"), format, scheme, 1, "", signature, pixels=pixels)
        return "openvino" in runtimes_of(artifact)

    assert [able("onnx", "int8"), able("onnx", "int8", "uint8", pixels=True), able("tflite", "float32")] == [True] * 3
    assert [able("tflite", "int8"), able("tflite", "float32", "uint8"), able("tflite", "float16")] == [False] * 3
