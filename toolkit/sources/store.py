"""Models at rest between stages: a `.keras` file, or the file or folder of another kind, and beside it its contract.

The contract is JSON (signature, preprocessing, what exporters must realise) and can be read without TensorFlow.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Collection
from dataclasses import asdict, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from toolkit.core import Codebook, Kind, Model, Preprocessing, QuantSpec, Signature, Statistics
from toolkit.errors import UnavailableError, UnsupportedError

# what a stage's file is called; none of these names is an artifact's
SUFFIXES: dict[Kind, str] = {
    "keras": ".keras",
    "savedmodel": ".savedmodel",
    "tflite": ".model.tflite",
    "onnx": ".model.onnx",
}

# packages whose classes and functions any process has
NOT_CODE = ("keras", "keras_core", "tensorflow", "numpy", "builtins", "toolkit")


def path_of(folder: Path, stage: str, kind: Kind) -> Path:
    """Where the model of a stage rests."""
    return folder / f"{stage}{SUFFIXES[kind]}"


def save(model: Model, path: Path) -> Model:
    """Write graph and contract; neither is ever half-written. The model as it rests: its own file, not its source's."""
    partial = path.with_name(f".{os.getpid()}.{path.name}")
    try:
        if model.kind == "keras":
            model.graph.save(partial)
        else:
            _copy(model.kind, model.graph, partial)
        if path.is_dir():
            shutil.rmtree(path)
        partial.replace(path)
    except OSError as error:
        raise UnavailableError(str(path), f"cannot be written: {error.strerror or error}", "free some space") from error
    finally:
        shutil.rmtree(partial) if partial.is_dir() else partial.unlink(missing_ok=True)
    save_contract(model, path)
    return model if model.kind == "keras" else replace(model, graph=path)


def _copy(kind: Kind, source: Path, target: Path) -> None:
    """A model file as one file, or a model folder; weights beside an .onnx file go into it."""
    if kind == "savedmodel":
        shutil.copytree(source, target)
        return
    if kind == "onnx":
        from toolkit.sources import onnx

        proto = onnx.read(source)
        if onnx.external(proto):
            onnx.save_whole(proto, source.parent, target)
            return
    shutil.copyfile(source, target)


def restore(path: Path, allow_code: Collection[str] = ()) -> Model:
    """The model saved at `path`. UnsupportedError where it needs the code of a module that is not allowed to run."""
    contract = read_contract(path)
    if contract.kind != "keras":
        return replace(contract, graph=path)
    import keras

    for name, module in json.loads(contract_path(path).read_text()).get("code", {}).items():
        if not any(f"{module}.".startswith(f"{allowed}.") for allowed in allow_code):
            raise UnsupportedError(str(path), f"needs {name} of module {module}", f"add --allow-code {module}")
        keras.saving.get_custom_objects().setdefault(name, getattr(import_module(module), name))
    graph = keras.models.load_model(path, compile=False)
    return replace(contract, graph=graph)


def save_contract(model: Model, path: Path) -> None:
    """Write the contract of the model at `path`."""
    contract = {
        "kind": model.kind,
        "signature": asdict(model.signature),
        "preprocessing": asdict(model.preprocessing),
        "quant": asdict(model.quant),
        "statistics": asdict(model.statistics) if model.statistics else None,
        "code": _code(model.graph),
        "sparse": dict(model.sparse),
        "clustered": {name: asdict(codebook) for name, codebook in model.clustered.items()},
    }
    target = contract_path(path)
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        partial.write_text(json.dumps(contract, indent=1))
        partial.replace(target)
    except OSError as error:
        raise UnavailableError(str(target), f"cannot be written: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)


def read_contract(path: Path) -> Model:
    """The model saved at `path`, its graph left out (None)."""
    data: dict[str, Any] = json.loads(contract_path(path).read_text())
    return Model(
        kind=data["kind"],
        graph=None,
        signature=TypeAdapter(Signature).validate_python(data["signature"]),
        preprocessing=TypeAdapter(Preprocessing).validate_python(data["preprocessing"]),
        quant=TypeAdapter(QuantSpec).validate_python(data["quant"]),
        statistics=TypeAdapter(Statistics | None).validate_python(data["statistics"]),
        sparse=data.get("sparse", {}),
        clustered=TypeAdapter(dict[str, Codebook]).validate_python(data.get("clustered", {})),
    )


def _code(graph: Any) -> dict[str, str]:
    """Name -> module of the classes and functions in a graph that are the user's own (allow_code)."""
    found: dict[str, str] = {}
    for layer in getattr(graph, "layers", ()):
        for item in (type(layer), getattr(layer, "function", None), getattr(layer, "activation", None)):
            module = str(getattr(item, "__module__", "keras"))
            if callable(item) and hasattr(item, "__name__") and module.partition(".")[0] not in NOT_CODE:
                found[item.__name__] = module
    return found


def contract_path(path: Path) -> Path:
    """Where the contract of the model at `path` stands."""
    return path.with_suffix(".json")
