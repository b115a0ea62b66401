"""TFLite Metadata: what a model file says of itself, in the form that Android's and MediaPipe's tools read.

A flatbuffer ModelMetadata (metadata_schema.fbs 1.1.0, identifier M001) in the entry TFLITE_METADATA of the model, and
the files it names as a zip archive behind the model: labels.txt, a line for each class, and edgekit.json, which says
what the schema has no field for. Page: ai.google.dev/edge/litert, "LiteRT model metadata".
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

from toolkit.errors import InputError, UnsupportedError
from toolkit.exporters import tflite_file
from toolkit.exporters.metadata import FileMetadata, as_json, from_parts

ENTRY, IDENTIFIER = "TFLITE_METADATA", b"M001"
PARSER = "1.0.0"  # least version of a parser that knows every field written here
LABELS, OWN = "labels.txt", "edgekit.json"
LARGEST = 2**24  # bytes of a file in the archive; a million labels are less

# numbers of metadata_schema.fbs: places of fields in their tables, members of unions, values of enumerations
_MODEL = {"name": 0, "description": 1, "subgraphs": 3, "files": 6, "parser": 7}
_GRAPH = {"inputs": 2, "outputs": 3}
_TENSOR = {"name": 0, "description": 1, "content": 3, "units": 4, "files": 6}
_IMAGE_PROPERTIES, _NORMALIZATION = 2, 1
_COLORS = {"bgr": 0, "rgb": 1, "gray": 2}  # UNKNOWN for what the schema does not know
_DESCRIPTIONS, _AXIS_LABELS = 1, 2

Fields = Mapping[int, Any]  # place -> text, Byte, list of numbers, table or list of tables


class Byte(int):
    """An enumeration's value or a union's type, which is stored in one byte."""


def embed(content: bytes, metadata: FileMetadata) -> bytes:
    """The file with its metadata; raises UnsupportedError where it has some already."""
    model = tflite_file.parse(content)
    if any(tflite_file.text(entry.name) == ENTRY for entry in model.metadata or []):
        problem = "the source file has TFLite Metadata of its own"
        raise UnsupportedError("tflite.metadata", problem, "leave metadata out: the file keeps what it has")
    schema, file = tflite_file.generated(), tflite_file.ends(model)
    model.buffers.append(schema.BufferT(data=_described(file, metadata)))
    entry = schema.MetadataT(name=ENTRY, buffer=len(model.buffers) - 1)
    model.metadata = [*(model.metadata or []), entry]
    whole = io.BytesIO()
    whole.write(tflite_file.pack(model))
    with zipfile.ZipFile(whole, "a") as archive:  # behind the model, where offsets count from the file's beginning
        for name, text in ((LABELS, _lines(metadata.classes)), (OWN, as_json(metadata.parts()))):
            if text:
                archive.writestr(zipfile.ZipInfo(name), text)  # ZipInfo's own date: equal content is equal bytes
    return whole.getvalue()


def read(content: bytes, where: str) -> FileMetadata | None:
    """What a file says of itself, or None; raises InputError where that cannot be read."""
    model = tflite_file.parse(content)
    entry = next((each for each in model.metadata or [] if tflite_file.text(each.name) == ENTRY), None)
    if entry is None:
        return None
    try:
        own = _packed(content, OWN)
        if own is not None:
            return from_parts(json.loads(own))
        return _foreign(bytes(model.buffers[entry.buffer].data), content)
    except (ValueError, IndexError, TypeError, zipfile.BadZipFile, NotImplementedError) as error:
        raise InputError(where, f"its metadata is not readable ({error})", "write the file again") from error


# ---------------------------------------------------------------- writing


def _described(ends: tuple[Sequence[tuple[str, tflite_file.Tensor]], ...], metadata: FileMetadata) -> Any:
    """The flatbuffer, as the bytes of a buffer."""
    import flatbuffers  # type: ignore[import-untyped]
    import numpy as np

    inputs, outputs = ends
    graph = {
        _GRAPH["inputs"]: [_input(name, tensor, metadata) for name, tensor in inputs],
        _GRAPH["outputs"]: [_output(name, tensor, metadata) for name, tensor in outputs],
    }
    fields = {
        _MODEL["name"]: metadata.provenance.get("model", "model"),
        _MODEL["description"]: _sentence(metadata),
        _MODEL["subgraphs"]: [graph],
        _MODEL["files"]: [_file(OWN, "Class names, preprocessing, head and provenance as JSON.", _DESCRIPTIONS)],
        _MODEL["parser"]: PARSER,
    }
    builder = flatbuffers.Builder(1024)
    builder.Finish(_table(builder, fields), file_identifier=IDENTIFIER)
    return np.frombuffer(bytes(builder.Output()), np.uint8)


def _input(name: str, tensor: tflite_file.Tensor, metadata: FileMetadata) -> Fields:
    """An image is described; any other input has its name only."""
    wanted = metadata.preprocessing
    if len(tensor.shape) != 4 or not wanted:
        return {_TENSOR["name"]: name}
    properties = {0: Byte(_COLORS[wanted["color"]])}
    mean, std = _mean_std(wanted["scale"], wanted["offset"])
    return {
        _TENSOR["name"]: name,
        _TENSOR[
            "description"
        ]: f"Image, {wanted['color'].upper()}, pixel values 0..255 normalized as (x - mean) / std.",
        _TENSOR["content"]: {0: Byte(_IMAGE_PROPERTIES), 1: properties},
        _TENSOR["units"]: [{0: Byte(_NORMALIZATION), 1: {0: mean, 1: std}}],
    }


def _output(name: str, tensor: tflite_file.Tensor, metadata: FileMetadata) -> Fields:
    """Labels go with an output that has a value for each."""
    named = metadata.classes and tensor.shape[-1:] == (len(metadata.classes),)
    files = [_file(LABELS, "Name of each value of the output, one a line.", _AXIS_LABELS)] if named else []
    return {_TENSOR["name"]: name, **({_TENSOR["files"]: files} if files else {})}


def _file(name: str, description: str, kind: int) -> Fields:
    return {0: name, 1: description, 2: Byte(kind)}


def _mean_std(scale: Sequence[float], offset: Sequence[float]) -> tuple[list[float], list[float]]:
    """x * scale + offset as (x - mean) / std."""
    count = max(len(scale), len(offset))
    scales, offsets = (list(each) * count if len(each) == 1 else list(each) for each in (scale, offset))
    return [-b / a for a, b in zip(scales, offsets, strict=True)], [1 / a for a in scales]


def _sentence(metadata: FileMetadata) -> str:
    return "; ".join([f"head {metadata.head}", *(f"{key} {value}" for key, value in metadata.provenance.items())])


def _lines(classes: Sequence[str]) -> str:
    """A line for each name; a line break inside one becomes a space."""
    return "".join(f"{' '.join(name.splitlines())}\n" for name in classes)


def _table(builder: Any, fields: Fields) -> int:
    """Offset of a written table: children come first in a flatbuffer."""
    written = {place: _child(builder, value) for place, value in fields.items()}
    builder.StartObject(max(fields, default=-1) + 1)
    for place, value in written.items():
        if isinstance(fields[place], Byte):
            builder.PrependInt8Slot(place, value, 0)
        else:
            builder.PrependUOffsetTRelativeSlot(place, value, 0)
    return int(builder.EndObject())


def _child(builder: Any, value: Any) -> int:
    if isinstance(value, Byte):
        return int(value)
    if isinstance(value, str):
        return int(builder.CreateString(value))
    if isinstance(value, Mapping):
        return _table(builder, value)
    if value and isinstance(value[0], float):
        builder.StartVector(4, len(value), 4)
        for number in reversed(value):
            builder.PrependFloat32(number)
        return int(builder.EndVector())
    offsets = [_table(builder, each) for each in value]
    builder.StartVector(4, len(offsets), 4)
    for offset in reversed(offsets):
        builder.PrependUOffsetTRelative(offset)
    return int(builder.EndVector())


# ---------------------------------------------------------------- reading


def _packed(content: bytes, name: str) -> str | None:
    """Text of a file in the archive behind the model, or None."""
    whole = io.BytesIO(content)
    if not zipfile.is_zipfile(whole):
        return None
    with zipfile.ZipFile(whole) as archive:
        if name not in archive.namelist():
            return None
        if archive.getinfo(name).file_size > LARGEST:
            raise ValueError(f"{name} has more than {LARGEST} bytes")
        return archive.read(name).decode("utf-8")


def _foreign(metadata: bytes, content: bytes) -> FileMetadata:
    """Labels and normalization of a file that another tool described."""
    from flatbuffers.encode import Get  # type: ignore[import-untyped]
    from flatbuffers.packer import uoffset  # type: ignore[import-untyped]

    root = _Table(metadata, int(Get(uoffset, metadata, 0)))
    graphs = root.tables(_MODEL["subgraphs"])
    inputs, outputs = ([t for g in graphs[:1] for t in g.tables(_GRAPH[end])] for end in ("inputs", "outputs"))
    preprocessing: dict[str, Any] = {}
    for unit in (unit for tensor in inputs for unit in tensor.tables(_TENSOR["units"])):
        if unit.byte(0) == _NORMALIZATION and not preprocessing:
            options = unit.table(1)
            preprocessing = {"mean": options.floats(0), "std": options.floats(1)} if options else {}
    files = (file for tensor in outputs for file in tensor.tables(_TENSOR["files"]))
    named = next((file.text(0) for file in files if file.byte(2) == _AXIS_LABELS), "")
    labels = _packed(content, named) if named else None
    return FileMetadata(tuple((labels or "").splitlines()), preprocessing, "", {"description": root.text(1)})


class _Table:
    """A table of a flatbuffer, read by the places of its fields."""

    def __init__(self, content: bytes, at: int) -> None:
        from flatbuffers.table import Table  # type: ignore[import-untyped]

        if not 0 <= at < len(content):
            raise ValueError("an offset points outside")
        self._content, self._table = content, Table(bytearray(content), at)

    def _at(self, place: int) -> int | None:
        offset = self._table.Offset(4 + 2 * place)
        return int(offset) + int(self._table.Pos) if offset else None

    def byte(self, place: int) -> int:
        at = self._at(place)
        return self._content[at] if at is not None else 0

    def text(self, place: int) -> str:
        at = self._at(place)
        return bytes(self._table.String(at)).decode("utf-8", "replace") if at is not None else ""

    def table(self, place: int) -> _Table | None:
        at = self._at(place)
        return _Table(self._content, int(self._table.Indirect(at))) if at is not None else None

    def tables(self, place: int) -> list[_Table]:
        return [_Table(self._content, int(self._table.Indirect(at))) for at in self._places(place)]

    def floats(self, place: int) -> list[float]:
        import struct

        return [float(struct.unpack_from("<f", self._content, at)[0]) for at in self._places(place)]

    def _places(self, place: int) -> range:
        """Where the elements of a vector of four bytes each stand."""
        offset = self._table.Offset(4 + 2 * place)
        if not offset:
            return range(0)
        start, length = int(self._table.Vector(offset)), int(self._table.VectorLen(offset))
        if start + 4 * length > len(self._content):
            raise ValueError("a vector ends outside")
        return range(start, start + 4 * length, 4)
