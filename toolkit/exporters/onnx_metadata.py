"""Edgekit's keys in an .onnx file's metadata_props (onnx.ai, "Optional Metadata").

edgekit.classes        JSON list of names, in the order of the outputs
edgekit.preprocessing  JSON object: the fields of core.Preprocessing, as the file's caller owes them
edgekit.head           what the first output means: "softmax", "logits", ...
edgekit.provenance     JSON object of text: the source's SHA-256, versions, scheme
"""

from __future__ import annotations

import json
from pathlib import Path

from toolkit.errors import InputError, UnsupportedError
from toolkit.exporters import onnx_file
from toolkit.exporters.metadata import FileMetadata, as_json, from_parts

PREFIX = "edgekit."
PLAIN = ("head",)  # text; the others are JSON


def embed(content: bytes, metadata: FileMetadata) -> bytes:
    """The file with these keys beside those it has; raises UnsupportedError where it has them already."""
    import onnx

    proto = onnx.load_from_string(content)
    taken = [prop.key for prop in proto.metadata_props if prop.key.startswith(PREFIX)]
    if taken:
        problem = f"the source file has metadata of Edgekit's own already ({taken[0]})"
        raise UnsupportedError("onnx.metadata", problem, "leave metadata out: the file keeps what it has")
    for name, value in metadata.parts().items():
        proto.metadata_props.add(key=f"{PREFIX}{name}", value=value if name in PLAIN else as_json(value))
    return bytes(proto.SerializeToString(deterministic=True))


def read(path: Path) -> FileMetadata | None:
    """What the keys say, or None where there are none; raises InputError where one is no JSON."""
    props = {prop.key: prop.value for prop in onnx_file.read(path).proto.metadata_props}
    found = {key.removeprefix(PREFIX): value for key, value in props.items() if key.startswith(PREFIX)}
    if not found:
        return None
    try:
        return from_parts({name: text if name in PLAIN else json.loads(text) for name, text in found.items()})
    except ValueError as error:
        raise InputError(str(path), f"its metadata is not readable ({error})", "write the file again") from error
