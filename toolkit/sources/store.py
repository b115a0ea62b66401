"""Models at rest between stages: a `.keras` file and, beside it, its contract as JSON.

The contract (signature, preprocessing, what exporters must realise) can be read without TensorFlow.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from toolkit.core import Model, Preprocessing, QuantSpec, Signature
from toolkit.errors import UnavailableError

# packages whose classes and functions any process has
NOT_CODE = ("keras", "keras_core", "tensorflow", "numpy", "builtins", "toolkit")


def save(model: Model, path: Path) -> None:
    """Write graph and contract; neither is ever half-written."""
    partial = path.with_name(f".{path.stem}.{os.getpid()}.keras")
    try:
        model.graph.save(partial)
        partial.replace(path)
    except OSError as error:
        raise UnavailableError(str(path), f"cannot be written: {error.strerror or error}", "free some space") from error
    finally:
        partial.unlink(missing_ok=True)
    save_contract(model, path)


def restore(path: Path) -> Model:
    """The model saved at `path`."""
    import keras

    contract = read_contract(path)
    for name, module in json.loads(contract_path(path).read_text()).get("code", {}).items():
        keras.saving.get_custom_objects().setdefault(name, getattr(import_module(module), name))
    graph = keras.models.load_model(path, compile=False)
    return Model(contract.kind, graph, contract.signature, contract.preprocessing, contract.quant)


def save_contract(model: Model, path: Path) -> None:
    """Write the contract of the model at `path`."""
    contract = {
        "kind": model.kind,
        "signature": asdict(model.signature),
        "preprocessing": asdict(model.preprocessing),
        "quant": asdict(model.quant),
        "code": _code(model.graph),
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
