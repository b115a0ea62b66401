"""Files of Keras 2 (TensorFlow up to 2.15, tf_keras): built by tf_keras from what was read as data, carried to Keras 3.

tf_keras applies no safe mode to .h5 and SavedModel. So no loader of whole models runs: the architecture is parsed and
checked here, tf_keras builds it from that very table, and only weights are read from the file. Of a SavedModel the
TensorFlow graph, which may hold any operation, is never loaded: its checkpoint is.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toolkit.core import Meaning, Model
from toolkit.errors import InputError, UnavailableError, UnsupportedError
from toolkit.sources import archive, code, hdf5
from toolkit.sources.checked import check_complete, check_same, check_weights
from toolkit.sources.saved import MAX_CONFIG, Saved, parse_json
from toolkit.sources.signature import signature

METADATA = "keras_metadata.pb"
# classes that would reach beyond layers: any attribute or method of a TensorFlow object, any operation of its graph
REACHING = ("ClassMethod", "InstanceMethod", "InstanceProperty", "TensorFlowOpLayer", "LinearModel", "WideDeepModel")
FAMILIES = ("initializers", "regularizers", "constraints", "mixed_precision", "dtensor")
VALUES = ("__tuple__", "__ellipsis__", "__tensor__", "__numpy__", "TensorShape", "TypeSpec", "function", "Variable")
POLICIES = ("Policy", "PolicyV1")


def load(
    path: Path,
    saved: Saved,
    allowed: code.Allowed,
    *,
    head: Meaning | str = "auto",
    input_shape: tuple[int, int] | None = None,
) -> Model:
    """The Keras 3 form of a Keras 2 model whose architecture was read and checked, outputs compared."""
    from toolkit.engine import agree
    from toolkit.engine.carry import carry

    old = _built(path, saved, allowed)
    check_weights(str(path), old.weights)
    carried = carry(old, input_shape, _newer(allowed), str(path))
    kinds = [layer.compute_dtype for layer in old._flatten_layers()]
    found = check_same(str(path), agree.tf_keras_answer(old), carried.model, old.inputs, agree.coarsest(kinds))
    writer = f"Keras {saved.version}" if saved.version else "Keras 2"
    notes = [f"carried from {writer} {saved.form}: {found}"]
    if carried.dropped:
        notes.append(f"augmentation left out, it does nothing in inference: {', '.join(carried.dropped)}")
    ends = signature(carried.model, carried.inputs, carried.outputs, head)
    return Model("keras", carried.model, ends, notes=tuple(notes))


def load_saved_model(
    path: Path,
    *,
    head: Meaning | str = "auto",
    input_shape: tuple[int, int] | None = None,
    allow_code: tuple[str, ...] = (),
) -> Model:
    """The Keras 3 form of a SavedModel folder that Keras 2 wrote; ask `holds_keras` first."""
    allowed = code.allow(allow_code)
    config = _saved_model_config(path)
    code.check(str(path), config, allowed)
    code.check_widths(str(path), config, sum(file.stat().st_size for file in (path / "variables").glob("*")))
    saved = Saved("SavedModel", str(config.pop("keras_version", "")), config)
    return load(path, saved, allowed, head=head, input_shape=input_shape)


def holds_keras(path: Path) -> bool:
    """Whether a SavedModel folder says what Keras 2 model it was (TensorFlow 2.5 and later)."""
    return (path / METADATA).is_file()


# ---------------------------------------------------------------- building


def _built(path: Path, saved: Saved, allowed: code.Allowed) -> Any:
    """The tf_keras model with its weights."""
    where = str(path)
    tf_keras = _tf_keras(where)
    _check_known(where, saved.config, tf_keras, allowed)
    try:
        model = _from_config(saved, _older(allowed))
        if getattr(model, "inputs", None):  # else `carry` says what it is
            _give_weights(path, saved.form, model)
    except InputError:
        raise
    except Exception as error:  # whatever tf_keras makes of an architecture or of weights that do not fit
        lines = str(error).strip().splitlines() or [type(error).__name__]
        problem = f"cannot be built by tf_keras {tf_keras.__version__}: {lines[0][:200]}"
        raise InputError(where, problem, "save the model again, or rebuild it under Keras 3") from error
    return model


def _from_config(saved: Saved, objects: Mapping[str, Any]) -> Any:
    from tf_keras.src.saving import serialization_lib
    from tf_keras.src.saving.legacy import model_config
    from tf_keras.src.saving.legacy.saved_model import json_utils
    from tf_keras.utils import custom_object_scope

    whole = {key: value for key, value in saved.config.items() if key not in code.COMPILED}
    config = code.without_bytecode(whole)
    with custom_object_scope(dict(objects)):
        if saved.form == ".keras":
            return serialization_lib.deserialize_keras_object(config, safe_mode=True)
        return model_config.model_from_config(json_utils.decode(json.dumps(config)))


def _give_weights(path: Path, form: str, model: Any) -> None:
    if form == "SavedModel":
        status = model.load_weights(str(path / "variables" / "variables"))
        status.assert_existing_objects_matched()
        status.expect_partial()
    elif form == ".h5":
        import h5py
        from tf_keras.src.saving.legacy import hdf5_format

        with h5py.File(path, "r") as file:
            hdf5_format.load_weights_from_hdf5_group(file["model_weights"], model)
    else:
        data = archive.weights(path)
        values = hdf5.check_weights(str(path), data)
        with tempfile.TemporaryDirectory(prefix="edgekit-") as folder:
            file = Path(folder) / archive.WEIGHTS
            file.write_bytes(data)
            model.load_weights(str(file))
        check_complete(str(path), values, model)


def _check_known(where: str, config: Mapping[str, Any], tf_keras: Any, allowed: code.Allowed) -> None:
    """Every class is one of Keras' own or allowed, every TensorFlow function one that can be carried over.

    What holds code was refused before, by `code.check`.
    """
    from tf_keras.src.layers import serialization

    from toolkit.engine import carry_ops

    serialization.populate_deserializable_objects()
    known = {name for name in serialization.LOCAL.ALL_OBJECTS if name not in REACHING}
    known |= {name for family in FAMILIES for name in dir(getattr(tf_keras, family, None))}
    known |= {*VALUES, *POLICIES, *carry_ops.KINDS}
    whole = {key: value for key, value in config.items() if key not in code.COMPILED}
    for layer, entry in code.classes(whole, str(whole.get("name") or "the model")):
        kind, inner = str(entry["class_name"]), entry.get("config")
        if kind in carry_ops.KINDS:
            function = str(inner.get("function")) if isinstance(inner, dict) else ""
            if not carry_ops.known(function):
                problem = f"layer {layer!r} calls tf.{function[:60]}, which has no form in Keras 3"
                raise UnsupportedError(where, problem, "replace it by built-in layers")
        elif kind not in known and not allowed.knows(kind):
            problem = f"layer {layer!r} is a {kind[:60]}, which is not one of Keras' own layers"
            raise UnsupportedError(where, problem, code.FIX)


def _tf_keras(where: str) -> Any:
    try:
        import tf_keras
    except ImportError as error:
        problem = "was written by Keras 2, and tf_keras, which reads such files, is not installed"
        raise UnavailableError(where, problem, "pip install 'edgekit[legacy]'") from error
    return tf_keras


def _older(allowed: code.Allowed) -> dict[str, Any]:
    """What the user's modules define for tf_keras; of two of one name, its own layer class."""
    import keras

    return {
        name: next((item for item in items if not _is_layer(item, keras)), items[0])
        for name, items in allowed.objects.items()
    }


def _newer(allowed: code.Allowed) -> dict[str, Any]:
    """What the user's modules define for Keras 3: functions, and layer classes that are Keras 3's."""
    import tf_keras

    chosen = {
        name: [item for item in items if not _is_layer(item, tf_keras)] for name, items in allowed.objects.items()
    }
    return {name: items[0] for name, items in chosen.items() if items}


def _is_layer(item: Any, package: Any) -> bool:
    return isinstance(item, type) and issubclass(item, package.layers.Layer)


# ---------------------------------------------------------------- SavedModel


def _saved_model_config(path: Path) -> dict[str, Any]:
    """Class and configuration of the model in a SavedModel folder, from its metadata alone."""
    where = str(path)
    _tf_keras(where)
    from tf_keras.protobuf import saved_metadata_pb2

    file = path / METADATA
    try:
        if file.stat().st_size > MAX_CONFIG:
            raise InputError(where, f"its {METADATA} is larger than {MAX_CONFIG >> 20} MiB")
        found = saved_metadata_pb2.SavedMetadata.FromString(file.read_bytes())
    except OSError as error:
        raise InputError(where, f"its {METADATA} cannot be read: {error.strerror}") from error
    except Exception as error:  # of the protobuf library
        problem = f"its {METADATA} is damaged ({type(error).__name__})"
        raise InputError(where, problem, "save the model again") from error
    root = next((node for node in found.nodes if node.node_path == "root"), None)
    if root is None:
        raise InputError(where, f"its {METADATA} names no model", "save the model again")
    metadata = parse_json(where, METADATA, root.metadata)
    if not isinstance(metadata.get("config"), dict) or "layers" not in metadata["config"]:
        problem = f"holds a {str(metadata.get('class_name'))[:60]}, whose graph cannot be followed"
        raise UnsupportedError(where, problem, "rebuild it as a functional or Sequential model")
    return {key: metadata[key] for key in ("class_name", "config", "keras_version") if key in metadata}
