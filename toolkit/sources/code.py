"""What in a model's configuration is code: told from the configuration as data, before any loader sees it.

Models are code. `Lambda` and classes that are not Keras' own are refused by layer name, at any depth, unless the user
names the module that defines them. Python bytecode inside a file is never run: no module defines it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from types import MappingProxyType
from typing import Any

from toolkit.errors import InputError, UnsupportedError

INITIALIZERS = "tensorflow.python.ops.init_ops_v2."  # EfficientNetV2 of Keras 2 has one of these
TRUSTED = ("keras.", "keras_core.", "tf_keras.", "tensorflow.python.keras.", INITIALIZERS)
# Keras classes that hold code of the file's author
CODE = ("Lambda", "__lambda__", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer", "DenseFeatures")
WIDTHS = ("units", "filters", "output_dim")
COMPILED = ("compile_config", "training_config")  # of the model itself: loaders are told not to compile
FUNCTIONS = ("keras.activations.", "keras.ops.", "tf_keras.activations.")  # where Keras' own functions live
# keras.activations of Keras 2 and 3
ACTIVATIONS = frozenset(
    "celu elu exponential gelu glu hard_shrink hard_sigmoid hard_silu hard_swish hard_tanh leaky_relu linear "  # noqa: SIM905
    "log_sigmoid log_softmax mish relu relu6 selu sigmoid silu soft_shrink softmax softplus softsign sparse_plus "
    "sparse_sigmoid sparsemax squareplus swish tanh tanh_shrink threshold".split()
)
FIXES = {
    "Lambda of Python bytecode": "replace it by built-in layers, or by a function in a module of yours (--allow-code)",
    "__lambda__": "replace it by built-in layers, or by a function in a module of yours (--allow-code)",
    "Lambda of Keras 2": "put a function with the layer's name into a module, and name that: --allow-code MODULE",
}
FIX = "replace it by built-in layers, or name the module that defines it: allow_code = ['MODULE'] (--allow-code)"


@dataclass(frozen=True)
class Allowed:
    """Code the user named: module names, and the classes and functions these define, by name (two may share one)."""

    modules: tuple[str, ...] = ()
    objects: Mapping[str, tuple[Any, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def knows(self, name: str) -> bool:
        """Whether a class or function of that name, registered ("package>name") or bare, comes from the modules."""
        return name.rpartition(">")[2] in self.objects


def allow(modules: Sequence[str]) -> Allowed:
    """Import the modules the user named; InputError for one that cannot be imported."""
    objects: dict[str, tuple[Any, ...]] = {}
    for name in modules:
        try:
            module = import_module(name)
        except Exception as error:  # whatever the user's own module raises
            problem = f"module {name!r} cannot be imported ({type(error).__name__}: {error})"
            raise InputError("allow_code", problem, "run where it is importable, or set PYTHONPATH") from error
        own = {key: value for key, value in vars(module).items() if not key.startswith("_") and callable(value)}
        for key, value in own.items():
            if str(getattr(value, "__module__", "")) == name:
                objects[key] = (*objects.get(key, ()), value)
    return Allowed(tuple(modules), MappingProxyType(objects))


def check(where: str, config: Mapping[str, Any], allowed: Allowed) -> None:
    """UnsupportedError, by layer, for a configuration that holds code the user did not allow."""
    whole = {key: value for key, value in config.items() if key not in COMPILED}
    for layer, entry in classes(whole, str(whole.get("name") or "the model")):
        what = _foreign(entry, allowed)
        if what is None:
            continue
        problem = f"layer {layer!r} holds code of its own ({what}), which is not run from a model file"
        raise UnsupportedError(where, problem, FIXES.get(what, FIX))


def check_widths(where: str, config: Mapping[str, Any], room: int) -> None:
    """InputError for a layer wider than the file has weights for: building it would fill the memory.

    room: bytes of the file's weights. Each unit or filter has a weight of its own, of at least one byte.
    """
    for layer, entry in classes(config, "the model"):
        inner = entry.get("config")
        if not isinstance(inner, dict):
            continue
        for key in WIDTHS:
            value = inner.get(key)
            if isinstance(value, int | float) and value > room:
                problem = f"layer {layer!r} has {key} = {value:,}, and the file {room:,} bytes of weights"
                raise InputError(where, problem, "save the model again")


def register(config: Mapping[str, Any], allowed: Allowed) -> None:
    """Tell Keras 3 of the allowed classes and functions that a configuration uses, so that copies of layers find them.

    Only of these: a user's function that is called as one of Keras' own must not replace it everywhere.
    """
    if not allowed.objects:
        return
    import keras

    used: set[str] = set()
    pending: list[Any] = [config]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending += item.values()
        elif isinstance(item, list):
            pending += item
        elif isinstance(item, str):
            used.add(item.rpartition(">")[2])
    for name in used & set(allowed.objects):
        keras.saving.get_custom_objects().setdefault(name, allowed.objects[name][-1])


def classes(node: Any, layer: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every serialized object, with the name of the layer it belongs to. Iterative: depth is the file's to choose."""
    pending = [(node, layer)]
    while pending:
        item, owner = pending.pop()
        if isinstance(item, dict):
            inner = item.get("config")
            if "class_name" in item:
                names = (inner.get("name") if isinstance(inner, dict) else None, item.get("name"))
                owner = next((name for name in names if isinstance(name, str)), owner)
                yield owner, item
            pending += [(value, owner) for value in item.values()]
        elif isinstance(item, list):
            pending += [(value, owner) for value in item]


def _foreign(entry: Mapping[str, Any], allowed: Allowed) -> str | None:
    """What of one serialized object is code that is not allowed, or None."""
    kind, module = str(entry.get("class_name")), entry.get("module")
    config = entry.get("config")
    registered = entry.get("registered_name")
    if kind == "Lambda":
        return _lambda(config, allowed)
    if kind in CODE:
        return kind
    if kind == "function":
        trusted = isinstance(module, str) and f"{module}.".startswith(FUNCTIONS)
        own = module in (None, "builtins") and config in ACTIVATIONS
        return None if trusted or own or allowed.knows(str(config)) else f"function {str(config)[:60]}"
    known = allowed.knows(str(registered or kind))
    if isinstance(registered, str) and ">" in registered and not known:
        return registered
    if ">" in kind and not allowed.knows(kind):
        return kind
    if isinstance(module, str) and not f"{module}.".startswith(TRUSTED) and module != "builtins" and not known:
        return f"{module}.{kind}"
    return _activation(config, allowed)


def _lambda(config: Any, allowed: Allowed) -> str | None:
    """Keras 3 writes a named function as a table, a lambda as bytecode. Keras 2 writes bytecode whatever it was.

    A function of the user's that has the name of the layer stands in for the bytecode of Keras 2 (`without_bytecode`).
    """
    function = config.get("function") if isinstance(config, dict) else None
    if isinstance(function, dict) and function.get("class_name") == "__lambda__":
        return "Lambda of Python bytecode"
    if _is_bytecode(function):
        return None if allowed.knows(str(config.get("name"))) else "Lambda of Keras 2"
    name = function.get("config") if isinstance(function, dict) else function
    return None if isinstance(name, str) and allowed.knows(name) else "Lambda"


def without_bytecode(config: Any) -> Any:
    """A configuration of Keras 2 in which every Lambda calls a function by the layer's own name."""
    if isinstance(config, list):
        return [without_bytecode(item) for item in config]
    if not isinstance(config, dict):
        return config
    found = {key: without_bytecode(value) for key, value in config.items()}
    inner = found.get("config")
    if found.get("class_name") == "Lambda" and isinstance(inner, dict) and _is_bytecode(inner.get("function")):
        inner |= {"function": inner.get("name"), "function_type": "function", "module": None}
    return found


def _is_bytecode(function: Any) -> bool:
    return isinstance(function, list) or (isinstance(function, dict) and function.get("class_name") == "__tuple__")


def _activation(config: Any, allowed: Allowed) -> str | None:
    """A function that Keras 2 wrote by its bare name."""
    for key, value in config.items() if isinstance(config, dict) else ():
        named = str(key).endswith("activation") and isinstance(value, str)
        if named and value not in ACTIVATIONS and not allowed.knows(value):
            return f"{key} {value[:60]!r}"
    return None
