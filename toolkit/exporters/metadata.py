"""What a file can say of itself: class names, the preprocessing its caller owes it, its head, where it comes from.

How that is written is `tflite_metadata` (TFLite Metadata) and `onnx_metadata` (metadata_props); `read_metadata` reads
both. Metadata changes nothing that a file computes, nor its canonical hash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from toolkit.core import ExportContext, Model
from toolkit.exporters import intake


@dataclass(frozen=True)
class FileMetadata:
    """preprocessing: the fields of core.Preprocessing, or what a foreign file says; empty where it says nothing."""

    classes: tuple[str, ...] = ()
    preprocessing: Mapping[str, Any] = field(default_factory=dict)
    head: str = ""
    provenance: Mapping[str, str] = field(default_factory=dict)

    def parts(self) -> dict[str, Any]:
        """By name, as JSON holds them."""
        return {
            "classes": list(self.classes),
            "preprocessing": dict(self.preprocessing),
            "head": self.head,
            "provenance": dict(self.provenance),
        }


def of(model: Model, context: ExportContext, *, pixels: bool = False) -> FileMetadata:
    """The metadata of a file of this model. pixels: it has an intake, so that its caller owes it less."""
    owed = intake.outside(model.preprocessing) if pixels else model.preprocessing
    provenance = {**context.provenance, "scheme": model.quant.scheme}
    return FileMetadata(context.classes, asdict(owed), model.head, provenance)


def from_parts(parts: Mapping[str, Any]) -> FileMetadata:
    """Back from `FileMetadata.parts`; what has another form than that is left out."""
    classes, preprocessing, provenance = (parts.get(name) for name in ("classes", "preprocessing", "provenance"))
    return FileMetadata(
        tuple(map(str, classes)) if isinstance(classes, list) else (),
        preprocessing if isinstance(preprocessing, dict) else {},
        str(parts.get("head") or ""),
        {str(k): str(v) for k, v in provenance.items()} if isinstance(provenance, dict) else {},
    )


def as_json(value: Any) -> str:
    """JSON in one line, with keys in order, so that equal content is equal text."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def read_metadata(path: Path) -> FileMetadata | None:
    """What a .tflite or .onnx file says of itself, or None where it says nothing.

    Of a TFLite file that Edgekit did not write, labels and normalization are read as that standard defines them.
    Raises InputError where what is there cannot be read.
    """
    if path.suffix.lower() == ".onnx":
        from toolkit.exporters import onnx_metadata

        return onnx_metadata.read(path)
    from toolkit.exporters import tflite_metadata

    return tflite_metadata.read(path.read_bytes(), str(path))
