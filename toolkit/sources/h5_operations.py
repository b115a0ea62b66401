"""Keras 3 `.h5` files with bare operations (`x * 2`), which Keras 3 writes and cannot load.

The format drops the modules of classes, so that Keras takes the operation Add for the layer of that name. They are told
apart by their configuration: a layer's says whether it is trainable. With the modules put back Keras builds the model
as from a `.keras` file (safe mode), and its own reader of `.h5` weights fills it.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

MODELS = {"Functional": "keras.src.models.functional", "Sequential": "keras", "Model": "keras"}
OPERATIONS = tuple(f"keras.src.ops.{name}" for name in ("numpy", "nn", "core", "math", "image", "linalg", "einops"))


def has_operations(config: Any) -> bool:
    """Whether an architecture read from a Keras 3 `.h5` file calls bare operations."""
    pending = [config]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if _is_operation(item):
                return True
            pending += item.values()
        elif isinstance(item, list):
            pending += item
    return False


def load(path: Path, config: Mapping[str, Any]) -> Any:
    """The Keras 3 model of the file, from its checked architecture."""
    import h5py
    import keras
    from keras.src.legacy.saving import legacy_h5_format

    model = keras.saving.deserialize_keras_object(_with_modules(dict(config)), safe_mode=True)
    with h5py.File(path, "r") as file:
        legacy_h5_format.load_weights_from_hdf5_group(file["model_weights"], model)
    return model


def _is_operation(entry: Mapping[str, Any]) -> bool:
    config, kind = entry.get("config"), str(entry.get("class_name"))
    bare = "inbound_nodes" in entry and "module" not in entry and kind not in ("InputLayer", *MODELS)
    return bare and isinstance(config, dict) and "trainable" not in config


def _with_modules(item: Any) -> Any:
    if isinstance(item, list):
        return [_with_modules(part) for part in item]
    if not isinstance(item, dict):
        return item
    found = {key: _with_modules(value) for key, value in item.items()}
    kind = str(found.get("class_name", "__"))
    if "module" not in found and not kind.startswith("__") and ">" not in kind:
        found |= {"module": _operation(kind) if _is_operation(item) else MODELS.get(kind, "keras.layers")}
        found |= {"registered_name": None}
    return found


def _operation(kind: str) -> str:
    """The module of Keras that defines an operation; ValueError when none does."""
    for name in OPERATIONS:
        try:
            module = import_module(name)
        except ModuleNotFoundError:  # a later or earlier Keras
            continue
        if isinstance(getattr(module, kind, None), type):
            return name
    raise ValueError(f"Keras has no operation {kind!r}")
