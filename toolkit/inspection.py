"""`inspect`: what a model file is, and what can take it."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from toolkit import registry
from toolkit.contract import contract_beside, contract_from, contract_lines
from toolkit.core import Artifact, Kind, Model, QuantSpec, Scheme, Signature, TensorSpec
from toolkit.digest import file_sha256
from toolkit.errors import InputError
from toolkit.executor import Executor
from toolkit.plan import no_graph, source_of

SHOWN = 10  # class names in a line
FORMATS = {".tflite": "tflite", ".onnx": "onnx"}


def inspect_file(path: Path, allow_code: Sequence[str] = ()) -> dict[str, Any]:
    """Inputs, outputs, layers or operators, parameters and MACs, and what each pass and exporter can do with it.

    allow_code: modules whose code the model may need; none is run otherwise.
    """
    _require_file(path, or_folder=True)
    if path.is_file() and path.suffix.lower() in FORMATS:
        return _inspect_artifact(path)
    with (
        tempfile.TemporaryDirectory(prefix="edgekit-") as folder,
        Executor(Path(folder) / "log.txt", lambda progress: None) as executor,
    ):
        found: dict[str, Any] = executor.call("inspect", path=path, allow_code=tuple(allow_code))
    return found


def inspection_lines(found: dict[str, Any]) -> Iterator[str]:
    """What `edgekit inspect` prints."""
    yield f"{found['file']}: {found['kind']}, {found['size_bytes'] / 1024:,.1f} KiB"
    for end in ("inputs", "outputs"):
        for spec in found[end]:
            shape = "x".join("?" if size is None else str(size) for size in spec["shape"])
            about = " ".join(filter(None, (spec["meaning"], spec["layout"] if spec["layout"] != "none" else "")))
            yield f"  {end[:-1]:<7} {spec['name']}: {shape} {spec['dtype']} ({about})"
    for note in found.get("notes", ()):
        yield f"  note    {note}"
    if "layers" in found:
        yield from _layer_lines(found)
    else:
        yield f"  scheme  {found['scheme']}"
        counts = (("parameters", found.get("parameters")), ("MACs", found.get("macs")))
        yield "  counts  " + ", ".join(f"{'unknown' if n is None else f'{n:,}'} {name}" for name, n in counts)
        yield "  operators: " + ", ".join(f"{count} {name}" for name, count in found["operators"].items())
    if found.get("pixels"):
        yield "  takes   uint8 pixels as decoded: colour order, scale and offset are inside the file"
    if found.get("metadata"):
        yield from _metadata_lines(found["metadata"])
    if found.get("contract"):
        yield ""
        yield from contract_lines(contract_from(found["contract"]))
    if found.get("contract_problem"):
        yield ""
        yield f"contract: {found['contract_problem']}"
    if found.get("takes"):
        yield ""
        yield "what can take it:"
        yield from (f"  {name}: {text}" for name, text in found["takes"].items())


def read_artifact(path: Path) -> Artifact:
    """A delivered file as an artifact, everything read from the file itself; InputError if it is not one."""
    from toolkit.sources import opening

    _require_file(path)
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise InputError(str(path), "is neither a .tflite nor an .onnx file", "export the model first")
    opening.check_kind(path, "a .tflite file" if kind == "tflite" else "an .onnx file")
    read = _read_tflite if kind == "tflite" else _read_onnx
    try:
        signature, scheme, _ = read(path)
        if not signature.inputs or not signature.outputs:
            raise InputError(str(path), f"is not a readable .{kind} file (it has no inputs or no outputs)")
    except InputError:
        raise
    except Exception as error:  # whatever a parser makes of bytes that are not its format
        raise InputError(str(path), f"is not a readable .{kind} file ({type(error).__name__})") from error
    pixels = _takes_pixels(path, signature)
    return Artifact(path.name, path, kind, scheme, path.stat().st_size, file_sha256(path), signature, pixels=pixels)


def _takes_pixels(path: Path, signature: Signature) -> bool:
    """Whether a file takes uint8 pixels as decoded."""
    if signature.inputs[0].dtype != "uint8" or path.suffix.lower() == ".onnx":
        return signature.inputs[0].dtype == "uint8"
    from toolkit.exporters import tflite_file, tflite_intake

    return tflite_intake.is_embedded(tflite_file.read(path))


def _inspect_artifact(path: Path) -> dict[str, Any]:
    from toolkit.exporters import file_cost
    from toolkit.exporters.metadata import read_metadata

    artifact = read_artifact(path)
    read = _read_tflite if artifact.format == "tflite" else _read_onnx
    operators = read(path)[2]
    kind: Kind = "tflite" if artifact.format == "tflite" else "onnx"
    parameters, macs = (file_cost.tflite_count if kind == "tflite" else file_cost.onnx_count)(path)
    try:
        contract, problem = contract_beside(path, artifact.sha256), ""
    except InputError as error:
        contract, problem = None, str(error)
    runtimes = {
        f"runtime {name}": f"runs .{artifact.format} files"
        for name in registry.names("runtimes")
        if artifact.format in registry.load("runtimes", name).formats
    }
    said = read_metadata(path)
    return {
        "file": str(path),
        "kind": artifact.format,
        "size_bytes": artifact.size_bytes,
        "sha256": artifact.sha256,
        "scheme": artifact.scheme,
        "inputs": [asdict(spec) for spec in artifact.signature.inputs],
        "outputs": [asdict(spec) for spec in artifact.signature.outputs],
        "parameters": parameters,
        "macs": macs,
        "operators": dict(operators.most_common()),
        "contract": contract and asdict(contract),
        "contract_problem": problem,
        "pixels": artifact.pixels,
        "metadata": said.parts() if said else None,
        "takes": {**_takers(kind, artifact.scheme), **runtimes},
    }


def _read_tflite(path: Path) -> tuple[Signature, Scheme, Counter[str]]:
    from toolkit.exporters import tflite_file, tflite_scan

    file = tflite_file.read(path)
    ends = [tuple(TensorSpec(name, t.shape, t.dtype) for name, t in end) for end in (file.inputs, file.outputs)]
    scheme = tflite_scan.scheme_of(file)
    return Signature(ends[0], ends[1]), scheme, Counter(op.kind for op in file.operators)


def _read_onnx(path: Path) -> tuple[Signature, Scheme, Counter[str]]:
    from toolkit.exporters import onnx_file, onnx_scan

    file = onnx_file.read(path)
    kinds = Counter(str(node.op_type) for node in file.nodes)
    return Signature(file.inputs, file.outputs), onnx_scan.scheme_of(file), kinds


def inspect_trained(path: Path, allow_code: tuple[str, ...] = ()) -> dict[str, Any]:
    """`inspect_file` for a trained model, in this process; imports TensorFlow."""
    use = source_of(path)
    if use is None:
        suffixes = {s for name in registry.names("sources") for s in registry.load("sources", name).suffixes}
        raise InputError(str(path), f"a model file's name ends in {', '.join(sorted({*suffixes, *FORMATS}))}")
    from toolkit.engine.cost import cost
    from toolkit.engine.graph import summarize

    source = registry.load("sources", use)
    given = {"allow_code": allow_code} if "allow_code" in source.model_fields else {}
    model = source(**given).load(path)
    if model.kind == "savedmodel":
        return _inspect_savedmodel(path, model)
    rows = summarize(model.graph)
    try:
        macs: int | None = cost(model.graph).macs
    except InputError:
        macs = None
    return {
        "file": str(path),
        "kind": f"{use} model",
        "size_bytes": _size(path),
        "notes": list(model.notes),
        "inputs": [asdict(spec) for spec in model.signature.inputs],
        "outputs": [asdict(spec) for spec in model.signature.outputs],
        "parameters": model.graph.count_params(),
        "macs": macs,
        "layers": [asdict(row) for row in rows],
        "takes": _takers("keras", model=model),
    }


def _size(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.rglob("*")) if file.is_file())


def _inspect_savedmodel(path: Path, model: Model) -> dict[str, Any]:
    from toolkit.sources import savedmodel

    return {
        "file": str(path),
        "kind": "SavedModel without Keras",
        "size_bytes": _size(path),
        "inputs": [asdict(spec) for spec in model.signature.inputs],
        "outputs": [asdict(spec) for spec in model.signature.outputs],
        "parameters": savedmodel.variables(path),
        "macs": None,
        "scheme": model.quant.scheme,
        "operators": savedmodel.operators(path),
        "takes": _takers(model.kind),
    }


def _takers(kind: Kind, scheme: Scheme = "float32", model: Any = None) -> dict[str, str]:
    """What each pass and exporter says to a model of this kind; model: the graph, where there is one to ask."""
    found: dict[str, str] = {}
    for name in registry.names("passes"):
        takes = kind in registry.load("passes", name).takes
        found[f"pass {name}"] = "yes" if takes else f"no: {no_graph(kind)}"
    if "pass prune" in found and model is not None:
        found["pass prune"] = _prunable(model)
    if scheme != "float32":
        found["pass quantize"] = f"no: it is {scheme} already"
    for name in registry.names("exporters"):
        found[f"exporter {name}"] = _exportable(registry.load("exporters", name)(), kind, scheme)
    return found


def _exportable(exporter: Any, kind: Kind, scheme: Scheme) -> str:
    if kind not in exporter.takes:
        return f"no: {exporter.refusal(QuantSpec(), kind) or f'takes {chr(44).join(exporter.takes)}'}"
    if scheme != "float32":
        return f"yes, as it is ({scheme})"
    asked = (QuantSpec(each) for each in exporter.schemes)
    able = [each.scheme for each in asked if (exporter.refusal(each, kind) if kind != "keras" else None) is None]
    return f"yes, as {', '.join(able)}"


def _prunable(model: Any) -> str:
    from toolkit.engine.groups import find_groups, frozen_channels

    groups = find_groups(model.graph)
    free = [group for group in groups if not group.frozen]
    found = frozen_channels(groups)
    kept = "; ".join(reason for reason, _ in found.reasons[:4])
    tail = f"; kept whole ({found.share:.1%} of the channels): {kept}" if kept else ""
    if not free:
        return f"no: no channel can be removed{tail}"
    return f"yes: {found.channels - found.frozen:,} channels in {len(free)} groups can be removed{tail}"


def _layer_lines(found: dict[str, Any]) -> Iterator[str]:
    rows = [("layer", "kind", "output", "parameters", "MACs")]
    for row in found["layers"]:
        shape = "x".join("?" if size is None else str(size) for size in row["output_shape"][1:])
        macs = "?" if row["macs"] is None else f"{row['macs']:,}" if row["macs"] else ""
        rows.append((row["layer"], row["kind"], shape, f"{row['parameters']:,}" if row["parameters"] else "", macs))
    total = "?" if found["macs"] is None else f"{found['macs']:,}"
    rows.append(("total", "", "", f"{found['parameters']:,}", total))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    yield ""
    for row in rows:
        left = "  ".join(cell.ljust(width) for cell, width in zip(row[:3], widths[:3], strict=True))
        right = "  ".join(cell.rjust(width) for cell, width in zip(row[3:], widths[3:], strict=True))
        yield f"  {left}  {right}".rstrip()


def _metadata_lines(said: dict[str, Any]) -> Iterator[str]:
    """What the file says of itself."""
    yield ""
    yield "the file says of itself:"
    names = said["classes"]
    if names:
        shown = ", ".join(names[:SHOWN]) + (f", ... ({len(names)} in all)" if len(names) > SHOWN else "")
        yield f"  classes: {shown}"
    if said["head"]:
        yield f"  head: {said['head']}"
    for part in ("preprocessing", "provenance"):
        yield from (f"  {part} {key}: {value}" for key, value in said[part].items())


def _require_file(path: Path, *, or_folder: bool = False) -> None:
    if or_folder and source_of(path) and path.is_dir():
        return
    if not path.is_file():
        raise InputError(str(path), "is a folder, not a file" if path.is_dir() else "no such file")
