"""Metadata in files, read back by other means: zipfile, a walk through the flatbuffer's own bytes, onnx itself."""

from __future__ import annotations

import json
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from ai_edge_litert.interpreter import Interpreter

from tests.exporters.conftest import SIZE, Images
from toolkit.core import ExportContext, Model, Preprocessing, QuantSpec
from toolkit.errors import InputError, UnsupportedError
from toolkit.exporters import onnx_file, onnx_metadata, tflite_file, tflite_metadata
from toolkit.exporters.metadata import FileMetadata, read_metadata
from toolkit.exporters.onnx import ONNX
from toolkit.exporters.tflite import TFLite
from toolkit.inspection import inspect_file, inspection_lines

CLASSES = ("cat", "dog", "größe", "a\nb", "e")
IMAGENET = Preprocessing(scale=(0.25, 0.5, 1.0), offset=(-1.0, 2.0, -3.0))
FROM = {"model": "net.keras", "sha256": "ab" * 32, "edgekit": "1.0"}


class Walk:
    """A flatbuffer table, read by its vtable as the format's page describes it, without the library."""

    def __init__(self, content: bytes, at: int) -> None:
        self.content, self.at = content, at

    @classmethod
    def root(cls, content: bytes) -> Walk:
        return cls(content, struct.unpack_from("<I", content, 0)[0])

    def place(self, field: int) -> int:
        table = self.at - struct.unpack_from("<i", self.content, self.at)[0]
        size = struct.unpack_from("<H", self.content, table)[0]
        offset = struct.unpack_from("<H", self.content, table + 4 + 2 * field)[0] if 4 + 2 * field < size else 0
        return self.at + offset if offset else 0

    def follow(self, at: int) -> int:
        return at + int(struct.unpack_from("<I", self.content, at)[0])

    def text(self, field: int) -> str:
        start = self.follow(self.place(field))
        (length,) = struct.unpack_from("<I", self.content, start)
        return self.content[start + 4 : start + 4 + length].decode()

    def byte(self, field: int) -> int:
        return self.content[self.place(field)] if self.place(field) else 0

    def table(self, field: int) -> Walk:
        return Walk(self.content, self.follow(self.place(field)))

    def elements(self, field: int) -> list[int]:
        if not self.place(field):
            return []
        start = self.follow(self.place(field))
        (length,) = struct.unpack_from("<I", self.content, start)
        return [start + 4 + 4 * i for i in range(length)]

    def tables(self, field: int) -> list[Walk]:
        return [Walk(self.content, self.follow(at)) for at in self.elements(field)]

    def floats(self, field: int) -> list[float]:
        return [struct.unpack_from("<f", self.content, at)[0] for at in self.elements(field)]


def buffer_of(path: Path) -> bytes:
    model = tflite_file.parse(path.read_bytes())
    (entry,) = [each for each in model.metadata if each.name == b"TFLITE_METADATA"]
    return bytes(model.buffers[entry.buffer].data)


def export(exporter: Any, model: Model, path: Path, data: Any = None) -> Any:
    return exporter.export(model, path, ExportContext(data, classes=CLASSES, provenance=FROM))


@pytest.fixture(scope="module")
def described(classifier_model: Model) -> Model:
    return replace(classifier_model, preprocessing=IMAGENET)


@pytest.fixture(scope="module")
def files(described: Model, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("metadata")
    export(TFLite(), described, folder / "plain.tflite")
    export(TFLite(metadata=True), described, folder / "said.tflite")
    export(ONNX(), described, folder / "plain.onnx")
    export(ONNX(metadata=True), described, folder / "said.onnx")
    return {path.name: path for path in folder.iterdir()}


def test_flatbuffer_holds_what_the_schema_asks_for(files: dict[str, Path]) -> None:
    content = buffer_of(files["said.tflite"])
    assert content[4:8] == b"M001"
    root = Walk.root(content)
    assert (root.text(0), root.text(7)) == ("net.keras", "1.0.0")
    (graph,) = root.tables(3)
    (image,), (scores,) = graph.tables(2), graph.tables(3)
    assert (image.text(0), scores.text(0)) == ("image", "scores")
    assert image.table(3).byte(0) == 2 and image.table(3).table(1).byte(0) == 1  # ImageProperties, RGB
    (unit,) = image.tables(4)
    assert unit.byte(0) == 1  # NormalizationOptions
    options = unit.table(1)
    # x * scale + offset = (x - mean) / std: std = 1 / scale, mean = -offset / scale
    assert (options.floats(0), options.floats(1)) == ([4.0, -4.0, 3.0], [4.0, 2.0, 1.0])
    (labels,) = scores.tables(6)
    assert (labels.text(0), labels.byte(2)) == ("labels.txt", 2)  # TENSOR_AXIS_LABELS
    assert [file.text(0) for file in root.tables(6)] == ["edgekit.json"]


def test_labels_are_a_file_of_the_archive_behind_the_model(files: dict[str, Path]) -> None:
    with zipfile.ZipFile(files["said.tflite"]) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == ["labels.txt", "edgekit.json"]
        assert archive.read("labels.txt").decode() == "cat\ndog\ngröße\na b\ne\n"
        assert json.loads(archive.read("edgekit.json"))["classes"] == list(CLASSES)


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_metadata_changes_neither_answers_nor_canonical_hash(files: dict[str, Path], suffix: str) -> None:
    plain, said = files[f"plain{suffix}"], files[f"said{suffix}"]
    image = np.random.default_rng(0).random((1, *SIZE, 3), dtype=np.float32)
    if suffix == ".onnx":
        from onnxruntime import InferenceSession

        first, second = (InferenceSession(str(path)).run(None, {"image": image})[0] for path in (plain, said))
        hashes = [onnx_file.canonical_hash(path) for path in (plain, said)]
    else:
        first, second = (
            Interpreter(model_path=str(path)).get_signature_runner()(image=image)["scores"] for path in (plain, said)
        )
        hashes = [tflite_file.canonical_hash(path) for path in (plain, said)]
    np.testing.assert_array_equal(first, second)
    assert hashes[0] == hashes[1]


def test_onnx_keys_are_the_documented_ones(files: dict[str, Path]) -> None:
    props = {prop.key: prop.value for prop in onnx.load(files["said.onnx"]).metadata_props}
    assert sorted(props) == ["edgekit.classes", "edgekit.head", "edgekit.preprocessing", "edgekit.provenance"]
    assert json.loads(props["edgekit.classes"]) == list(CLASSES)
    assert json.loads(props["edgekit.preprocessing"])["scale"] == [0.25, 0.5, 1.0]
    assert json.loads(props["edgekit.provenance"]) == {**FROM, "scheme": "float32"}
    assert props["edgekit.head"] == "softmax"
    assert not onnx.load(files["plain.onnx"]).metadata_props


@pytest.mark.parametrize("suffix", [".tflite", ".onnx"])
def test_what_was_written_is_read_back_and_inspected(files: dict[str, Path], suffix: str) -> None:
    found = read_metadata(files[f"said{suffix}"])
    assert found is not None
    assert (found.classes, found.head, found.provenance) == (CLASSES, "softmax", {**FROM, "scheme": "float32"})
    assert (found.preprocessing["color"], found.preprocessing["offset"]) == ("rgb", [-1.0, 2.0, -3.0])
    assert read_metadata(files[f"plain{suffix}"]) is None
    lines = list(inspection_lines(inspect_file(files[f"said{suffix}"])))
    assert any(line.startswith("  classes: cat, dog") for line in lines)
    assert f"  provenance sha256: {'ab' * 32}" in lines


def test_files_of_pixels_say_that_nothing_is_left_but_the_size(described: Model, tmp_path: Path) -> None:
    exporter = TFLite(metadata=True, embed_preprocessing=True)
    images = Images(described.signature.inputs)
    path = export(exporter, replace(described, quant=QuantSpec("int8")), tmp_path / "m.tflite", images).path
    found = read_metadata(path)
    assert found and (found.preprocessing["scale"], found.preprocessing["offset"]) == ([1.0], [0.0])
    (unit,) = Walk.root(buffer_of(path)).tables(3)[0].tables(2)[0].tables(4)
    assert (unit.table(1).floats(0), unit.table(1).floats(1)) == ([0.0], [1.0])


def test_same_export_twice_is_the_same_bytes(described: Model, files: dict[str, Path], tmp_path: Path) -> None:
    again = export(TFLite(metadata=True), described, tmp_path / "again.tflite").path
    assert again.read_bytes() == files["said.tflite"].read_bytes()


def test_bgr_is_said_to_be_no_color_space_of_the_schema(files: dict[str, Path], tmp_path: Path) -> None:
    said = FileMetadata(preprocessing={"color": "bgr", "scale": [1.0], "offset": [0.0]})
    (tmp_path / "m.tflite").write_bytes(tflite_metadata.embed(files["plain.tflite"].read_bytes(), said))
    image = Walk.root(buffer_of(tmp_path / "m.tflite")).tables(3)[0].tables(2)[0]
    assert image.table(3).table(1).byte(0) == 0 and "BGR" in image.text(1)


def test_metadata_that_is_there_already_is_not_overwritten(files: dict[str, Path]) -> None:
    for module, name in ((tflite_metadata, "said.tflite"), (onnx_metadata, "said.onnx")):
        with pytest.raises(UnsupportedError, match="leave metadata out"):
            module.embed(files[name].read_bytes(), FileMetadata())


def test_labels_and_normalization_of_a_foreign_file_are_read_by_the_standard(files: dict[str, Path]) -> None:
    """Edgekit's own file is cut out of the archive: what is left is what any tool writes."""
    content = files["said.tflite"].read_bytes().replace(b"edgekit.json", b"edgekit.jsox")
    found = tflite_metadata.read(content, "foreign")
    assert found is not None
    assert found.classes == ("cat", "dog", "größe", "a b", "e")
    assert found.preprocessing == {"mean": [4.0, -4.0, 3.0], "std": [4.0, 2.0, 1.0]}


@pytest.mark.parametrize("damage", [b"\xff" * 40, b"", b"\x08\x00\x00\x00M001" + b"\x7f" * 30])
def test_damaged_metadata_is_one_line_and_no_crash(files: dict[str, Path], damage: bytes) -> None:
    schema = tflite_file.generated()
    model = tflite_file.parse(files["plain.tflite"].read_bytes())
    model.buffers.append(schema.BufferT(data=np.frombuffer(damage, np.uint8) if damage else None))
    model.metadata = [schema.MetadataT(name="TFLITE_METADATA", buffer=len(model.buffers) - 1)]
    with pytest.raises(InputError, match="metadata is not readable"):
        tflite_metadata.read(tflite_file.pack(model), "damaged")


def test_bytes_turned_anywhere_give_metadata_or_one_line(files: dict[str, Path]) -> None:
    content, generator = buffer_of(files["said.tflite"]), np.random.default_rng(0)
    model = tflite_file.parse(files["plain.tflite"].read_bytes())
    model.buffers.append(tflite_file.generated().BufferT())
    model.metadata = [tflite_file.generated().MetadataT(name="TFLITE_METADATA", buffer=len(model.buffers) - 1)]
    outcomes = set()
    for _ in range(300):
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[generator.integers(len(damaged), size=4)] = generator.integers(256, size=4)
        model.buffers[-1].data = damaged
        try:
            outcomes.add(type(tflite_metadata.read(tflite_file.pack(model), "damaged")).__name__)
        except InputError:
            outcomes.add("InputError")
    assert outcomes == {"FileMetadata", "InputError"}


def test_onnx_metadata_that_is_no_json_is_named(files: dict[str, Path], tmp_path: Path) -> None:
    proto = onnx.load(files["plain.onnx"])
    proto.metadata_props.add(key="edgekit.classes", value="[cut")
    onnx.save(proto, tmp_path / "m.onnx")
    with pytest.raises(InputError, match="metadata is not readable"):
        read_metadata(tmp_path / "m.onnx")
