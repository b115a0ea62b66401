"""TensorFlow SavedModel folders: looked at as data, operators first, because a SavedModel is a program.

TensorFlow's SECURITY.md: "models are programs"; what a graph may do is decided by its operators, so they are listed
from the protocol buffer and judged before any loader sees the folder. With Keras metadata it becomes a Keras graph.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from toolkit.core import Kind, Meaning, Model, TensorSpec
from toolkit.errors import InputError, UnsupportedError
from toolkit.schema import Component
from toolkit.sources import opening, proven

Side = Annotated[int, Field(ge=1)]
GRAPH = "saved_model.pb"
KERAS = "keras_metadata.pb"  # what Keras 2 adds for its own loader
MAX_TOTAL = 8 * 2**30  # bytes of a folder: far more than a network for an edge device
MAX_FILES = 10_000
CALLS = ("StatefulPartitionedCall", "PartitionedCall", "Identity", "IdentityN", "Reshape", "Squeeze")
# operators with a state that stays inside the process: variables, control flow, chance, tables of constants
STATEFUL = re.compile(
    r"VarHandleOp|ReadVariableOp|(Assign|AssignAdd|AssignSub)VariableOp|VarIsInitializedOp|DisableCopyOnRead|ResourceGather"
    r"|Placeholder(WithDefault)?|StatefulPartitionedCall|Stateless.*|If|While|Case|Random.*|.*Random(Uniform|Normal).*"
    r"|Multinomial|InitializeTable(V2)?|TruncatedNormal|ParameterizedTruncatedNormal|(Mutable)?HashTable(V2|OfTensorsV2)?|LookupTable.*V2"
    r"|Assert|FusedBatchNorm.*|TensorList.*|TensorArray.*|Empty|XlaLaunch.*|NoOp"
)
# operators that touch files, Python, other machines or memory that is not theirs, whatever state they declare
FORBIDDEN = re.compile(
    r".*PyFunc.*|.*File.*|.*Dataset.*|.*Iterator.*|.*Reader.*|.*Summary.*|Print(V2)?|ImmutableConst|.*Checkpoint.*"
    r"|Save.*|Restore.*|Debug.*|Remote.*|.*Rpc.*|.*Session.*|_?(Host)?(Send|Recv).*|.*Queue.*|LoadLibrary.*|.*TPU.*"
    r"|Xla(Host|Send|Recv).*|.*Barrier.*|.*Staging.*|Stage.*|Unstage.*|.*Bigtable.*|.*Cloud.*|.*GCS.*"
)
# what may stand in the two functions that write and read variables, which nobody calls here
CHECKPOINT = ("SaveV2", "RestoreV2", "MergeV2Checkpoints", "ShardedFilename")


class SavedModel(Component):
    """A trained model as a SavedModel folder (tf.saved_model.save, Keras 3's model.export): its serving signature."""

    suffixes: ClassVar[tuple[str, ...]] = ()
    folders: ClassVar[bool] = True  # it reads a folder, which has no suffix to go by
    kind: ClassVar[Kind] = "savedmodel"

    head: Literal["auto", "logits", "softmax", "sigmoid", "sigmoids", "embedding", "regression"] = "auto"
    """What the output means; auto looks at its last operator."""
    input_shape: tuple[Side, Side] | None = None
    """Height and width in pixels, where the model leaves them open."""
    layout: Literal["auto", "NHWC", "NCHW"] = "auto"
    """Where the input's channels stand; auto looks at its shape."""
    allow_code: tuple[str, ...] = ()
    """Modules that may be imported for layers of one's own, in a SavedModel that Keras 2 wrote; --allow-code."""

    @classmethod
    def kind_of(cls, path: Path) -> Kind:
        """What it becomes: a Keras graph where Keras 2 wrote it, else a SavedModel. Looks at names of files only."""
        return "keras" if (path / KERAS).is_file() else "savedmodel"

    def load(self, path: Path) -> Model:
        """The model in the folder `path`. Raises InputError or UnsupportedError with the reason."""
        if self.kind_of(path) == "keras":
            return _load_keras(path, self)
        graph = check(path)
        signature = _serving(path, graph)
        inputs = [self._input(name, info, path) for name, info in signature.inputs.items()]
        if not inputs:
            raise InputError(str(path), "its serving signature has no inputs")
        names = sorted(signature.outputs)  # how TensorFlow orders a table of outputs
        meanings = [_meaning(signature.outputs[name].name, graph) for name in names]
        return proven.model(
            "savedmodel", path, sorted(inputs, key=lambda spec: spec.name), names, proven.chosen(self.head, meanings)
        )

    def _input(self, name: str, info: Any, path: Path) -> TensorSpec:
        from tensorflow.core.framework import types_pb2

        where = f"{path}: input {name!r}"
        if info.dtype != types_pb2.DT_FLOAT:
            dtype = types_pb2.DataType.Name(info.dtype).removeprefix("DT_").lower()
            raise UnsupportedError(where, f"is {dtype}, and images are given as float32", "save a float signature")
        if info.tensor_shape.unknown_rank:
            raise InputError(where, "has no shape", "save it with an input signature")
        dims = tuple(dim.size if dim.size >= 0 else None for dim in info.tensor_shape.dim)
        opening.require_batch(dims, where)
        layout = opening.layout_of(dims, self.layout, where)
        shape = opening.sized(dims, layout, self.input_shape, where)
        return TensorSpec(name, shape, "float32", "image" if len(shape) == 4 else "tensor", layout)


def check(path: Path) -> Any:
    """The MetaGraphDef of a sound folder, nothing of which has run; InputError or UnsupportedError for another."""
    _check_files(path)
    opening.head_of(path / GRAPH, f"a {GRAPH}")
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        saved = saved_model_pb2.SavedModel.FromString((path / GRAPH).read_bytes())
    except DecodeError as error:
        raise InputError(str(path), f"its {GRAPH} is damaged", "save the model again") from error
    served = [graph for graph in saved.meta_graphs if "serve" in graph.meta_info_def.tags] or list(saved.meta_graphs)
    if len(served) != 1:
        raise InputError(str(path), f"holds {len(served)} graphs to serve, one is needed", "save the model again")
    graph = served[0]
    if not graph.object_graph_def.nodes:
        problem = "is in the form of TensorFlow 1 (no objects), whose loader runs what the file says"
        raise UnsupportedError(str(path), problem, "load it in TensorFlow and save it with tf.saved_model.save")
    for asset in graph.asset_file_def:
        name = PurePosixPath(asset.filename)
        if name.is_absolute() or ".." in name.parts or "\\" in asset.filename:
            raise InputError(str(path), f"names an asset outside its folder, {asset.filename!r}")
    _check_operators(path, graph)
    return graph


def _check_files(path: Path) -> None:
    if not path.is_dir():
        raise InputError(
            str(path), "is not a folder" if path.exists() else "no such folder", "name a SavedModel folder"
        )
    if not (path / GRAPH).is_file():
        raise InputError(str(path), f"is a folder without a {GRAPH}, so no SavedModel")
    total, root = 0, path.resolve()
    for number, file in enumerate(path.rglob("*")):
        if root not in file.resolve().parents:
            raise InputError(str(path), f"has a link that leads out of the folder, {file.name!r}")
        total += file.stat().st_size if file.is_file() else 0
        if number > MAX_FILES or total > MAX_TOTAL:
            raise InputError(str(path), f"holds more than {MAX_TOTAL >> 30} GiB or {MAX_FILES:,} files")


def _check_operators(path: Path, graph: Any) -> None:
    """Raise for an operator that could reach out of the model, wherever it stands.

    Only the functions that save and restore variables may name checkpoint files, and only if nothing else calls them.
    """
    functions = {function.signature.name: function for function in graph.graph_def.library.function}
    savers = _savers(graph, functions)
    for name, function in functions.items():
        _check_nodes(path, function.node_def, CHECKPOINT if name in savers else ())
        if name not in savers and (called := savers & set(_called(function.node_def))):
            raise UnsupportedError(str(path), f"function {name!r} calls the one that writes files, {min(called)!r}")
    _check_nodes(path, graph.graph_def.node, ())
    exposed = savers & set(graph.object_graph_def.concrete_functions)
    if exposed:
        raise UnsupportedError(str(path), f"exposes the function that writes files, {min(exposed)!r}")


def _savers(graph: Any, functions: dict[str, Any]) -> set[str]:
    saver = graph.saver_def
    roots = {name.partition(":")[0] for name in (saver.save_tensor_name, saver.restore_op_name) if name}
    nodes = [node for node in graph.graph_def.node if node.name in roots]
    return {name for name in _called(nodes) if name in functions}


def _called(nodes: Any) -> Iterator[str]:
    for node in nodes:
        for value in node.attr.values():
            if value.HasField("func"):
                yield value.func.name
            yield from (function.name for function in value.list.func)


def _check_nodes(path: Path, nodes: Any, also: tuple[str, ...]) -> None:
    from tensorflow.python.framework import op_def_registry

    for node in nodes:
        if node.op in also:
            continue
        known = op_def_registry.get(node.op)
        if known is None:
            problem = f"operator {node.op} ({node.name}) is not TensorFlow's own"
            raise UnsupportedError(str(path), problem, "save the model without custom operators")
        if FORBIDDEN.fullmatch(node.op) or (known.is_stateful and not STATEFUL.fullmatch(node.op)):
            problem = f"operator {node.op} ({node.name}) can reach files, Python or other machines, and is not run"
            raise UnsupportedError(str(path), problem, "save only what computes the answers")


def _serving(path: Path, graph: Any) -> Any:
    """The signature to serve: the default one, or the only one."""
    found = {key: value for key, value in graph.signature_def.items() if not key.startswith("__")}
    if "serving_default" in found:
        return found["serving_default"]
    if len(found) == 1:
        return next(iter(found.values()))
    known = ", ".join(sorted(found)) or "none"
    problem = f"has no signature called serving_default, its signatures: {known}"
    raise InputError(str(path), problem, "save it with signatures={'serving_default': ...}")


def _meaning(tensor: str, graph: Any) -> Meaning:
    """What an output is by the last operator before it, followed into the functions that compute it."""
    functions = {function.signature.name: function for function in graph.graph_def.library.function}
    nodes = {node.name: node for node in graph.graph_def.node}
    scope: Any = None
    for _ in range(len(functions) * 4 + 100):  # a damaged graph may run in circles
        name, _, place = tensor.lstrip("^").partition(":")
        node = nodes.get(name)
        if node is None:
            return "logits"
        if node.op in ("StatefulPartitionedCall", "PartitionedCall"):
            scope = functions.get(node.attr["f"].func.name)
            if scope is None:
                return "logits"
            index = int(place.rpartition(":")[2] or 0)
            tensor = scope.ret[scope.signature.output_arg[index].name]
            nodes = {inner.name: inner for inner in scope.node_def}
        elif node.op in CALLS and node.input:
            tensor = node.input[0]
        else:
            return proven.of_operator(node.op)
    return "logits"


def variables(path: Path) -> int | None:
    """Values in the variables its signature reads, counted in the protocol buffer; None where it reads none of them.

    Keras 3's export keeps each variable twice, so that those of the whole folder say nothing.
    """
    from math import prod

    graph = check(path)
    served = next(iter(_serving(path, graph).outputs.values())).name.partition(":")[0]
    functions = set(_called([node for node in graph.graph_def.node if node.name == served]))
    objects = graph.object_graph_def
    read = {i for name in functions for i in objects.concrete_functions[name].bound_inputs}
    shapes = [objects.nodes[i].variable.shape for i in read if objects.nodes[i].WhichOneof("kind") == "variable"]
    if not shapes or any(shape.unknown_rank or any(dim.size < 0 for dim in shape.dim) for shape in shapes):
        return None
    return sum(prod(int(dim.size) for dim in shape.dim) for shape in shapes)


def operators(path: Path) -> dict[str, int]:
    """How often each operator stands in what computes the answers, most often first."""
    graph = check(path)
    savers = _savers(graph, {function.signature.name: function for function in graph.graph_def.library.function})
    nodes = (
        node.op
        for function in graph.graph_def.library.function
        if function.signature.name not in savers
        for node in function.node_def
    )
    return dict(Counter(map(str, nodes)).most_common())


def _load_keras(path: Path, source: SavedModel) -> Model:
    """A Keras 2 SavedModel as a Keras graph, by the reader of legacy files."""
    from toolkit.sources import legacy

    return legacy.load_saved_model(path, head=source.head, input_shape=source.input_shape, allow_code=source.allow_code)
