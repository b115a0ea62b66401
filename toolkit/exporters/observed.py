"""Ranges of the tensors inside a file, found by running it: for tensors that only the file has, and files as sources.

LiteRT keeps what every operator computes, ONNX Runtime gives what is named as an output; neither changes the file.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from toolkit.errors import InputError, UnsupportedError
from toolkit.exporters import tflite_file
from toolkit.quantization import RangeMethod

if TYPE_CHECKING:
    from toolkit.core import Array
    from toolkit.engine.ranges import Collector

Ranges = dict[str, tuple[float, float]]


def observe_tflite(
    content: bytes,
    feed: Iterable[Mapping[str, Array]],
    method: RangeMethod = "minmax",
    percentile: float = 99.99,
    names: Collection[str] | None = None,
) -> Ranges:
    """Tensor name -> (low, high) of float tensors of the first graph that are no constants; of `names` alone if given.

    feed: examples of batch 1, by the names of the signature's inputs (or of the tensors, without a signature).

    Raises:
        UnsupportedError: a tensor's values are not finite; two wanted tensors have one name.
        InputError: the feed is empty, or a wanted name is not in the file.
    """
    from toolkit.engine.foreign import tflite_ends

    interpreter = keeping(content)
    inputs = {name: detail["index"] for name, detail in tflite_ends(interpreter)[0].items()}
    wanted = _chosen(_floats(content, interpreter), names, "tflite")
    collectors = _collectors(wanted.values(), method)
    for example in feed:
        for name, index in inputs.items():
            interpreter.set_tensor(index, example[name])
        interpreter.invoke()
        for index, name in wanted.items():
            collectors[name].add(interpreter.get_tensor(index).reshape(1, -1))
    return _resolved(collectors, method, percentile)


def observe_onnx(
    proto: Any,
    feed: Iterable[Mapping[str, Array]],
    method: RangeMethod = "minmax",
    percentile: float = 99.99,
    names: Collection[str] | None = None,
) -> Ranges:
    """The same of a ModelProto: inputs and everything its main graph computes in float32, by tensor name."""
    session, computed, given = _telling(proto)
    wanted = _chosen(dict(enumerate([*given, *computed])), names, "onnx")
    collectors = _collectors(wanted.values(), method)
    asked = [name for name in computed if name in collectors]
    for example in feed:
        values = dict(zip(asked, session.run(asked, dict(example)), strict=True)) if asked else {}
        values |= {name: example[name] for name in given if name in collectors}
        for name, value in values.items():
            collectors[name].add(value.reshape(1, -1))
    return _resolved(collectors, method, percentile)


# ---------------------------------------------------------------- what is collected


def _collectors(names: Iterable[str], method: RangeMethod) -> dict[str, Collector]:
    from toolkit.engine.ranges import NEEDS_HISTOGRAM, Collector

    return {name: Collector(histogram=method in NEEDS_HISTOGRAM) for name in names}


def _resolved(collectors: Mapping[str, Collector], method: RangeMethod, percentile: float) -> Ranges:
    from toolkit.engine.ranges import resolve

    found = {}
    for name, collector in collectors.items():
        if collector.empty:
            raise InputError("calibration", "no image was given to find ranges on", "give a calibration set")
        collected = collector.collected()
        if not collected.finite:
            raise UnsupportedError(name, "has no finite range on the calibration data", "look for a division by zero")
        found[name] = resolve(collected, method, percentile)
    return found


def _chosen(found: Mapping[int, str], names: Collection[str] | None, format: str) -> dict[int, str]:
    """The tensors that are wanted, each name once."""
    wanted = {index: name for index, name in found.items() if names is None or name in names}
    missing = sorted(set(names or ()) - set(wanted.values()))
    if missing:
        raise InputError(missing[0], f"is no float tensor that the {format} file computes")
    twice = [name for name, times in Counter(wanted.values()).items() if times > 1]
    if twice:
        raise UnsupportedError(format, f"two tensors of the file are called {twice[0]!r}", "convert it anew")
    return wanted


# ---------------------------------------------------------------- the two runtimes


def keeping(content: bytes) -> Any:
    """An interpreter that keeps what every operator computes."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns that tensors are kept, which is what is wanted
        interpreter = Interpreter(
            model_content=content,
            num_threads=1,
            experimental_preserve_all_tensors=True,
            experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
        )
    interpreter.allocate_tensors()
    return interpreter


def _floats(content: bytes, interpreter: Any) -> dict[int, str]:
    """Tensor index -> name of the float tensors that are computed or given."""
    import numpy as np

    constants = tflite_file.constant_indexes(content)
    return {
        int(item["index"]): str(item["name"])
        for item in interpreter.get_tensor_details()
        if item["dtype"] is np.float32 and item["index"] not in constants and item["name"]
    }


def _telling(proto: Any) -> tuple[Any, list[str], list[str]]:
    """(session that gives every tensor, names of the computed float32 ones, names of the float32 inputs)."""
    import onnx
    import onnxruntime

    open_graph = onnx.ModelProto()
    open_graph.CopyFrom(proto)
    graph = open_graph.graph
    known = {value.name for value in graph.output}
    made = dict.fromkeys(name for node in graph.node for name in node.output if name)
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in made if name not in known)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    # as it stands: a fused operator has no tensor between its parts
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(open_graph.SerializeToString(), options, providers=["CPUExecutionProvider"])
    constants = {node.output[0] for node in graph.node if node.op_type == "Constant"}
    computed = [item.name for item in session.get_outputs() if item.type == "tensor(float)"]
    given = [item.name for item in session.get_inputs() if item.type == "tensor(float)"]
    return session, [name for name in computed if name not in constants], given
