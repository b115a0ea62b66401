"""Answers of models that are no Keras graph: .onnx by ONNX Runtime, .tflite by LiteRT, SavedModel by TensorFlow.

Images go in channels last, whatever the file's own layout; answers come out in float32, whatever the file's types.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError

Array = NDArray[Any]
Run = Callable[[list[Array]], list[Array]]
BATCH = 64  # rows given at once to a file that leaves its batch open
CHANNELS_FIRST = (0, 3, 1, 2)
KEPT = 4  # opened files: the original, a teacher, and what is compared with them
PACKAGES = {"savedmodel": "tensorflow", "tflite": "ai-edge-litert", "onnx": "onnxruntime"}


@dataclass(frozen=True)
class Port:
    """One input. channels_first: the file takes its images as NCHW."""

    name: str
    channels_first: bool = False


@dataclass(frozen=True)
class Network:
    """A file (or SavedModel folder) and the names of its ends, in order. kind: savedmodel, tflite or onnx."""

    kind: str
    path: Path
    inputs: tuple[Port, ...]
    outputs: tuple[str, ...]


def answers(
    network: Network,
    inputs: Mapping[str, Array],
    batch: int = BATCH,
    watch: Callable[[int, int], None] = lambda done, total: None,
) -> list[Array]:
    """Outputs in order, float32, for whole arrays (memory maps are read a batch at a time), inputs bound by name.

    watch: is told how many rows of how many are done.
    Raises InputError where the runtime cannot load or run the file.
    """
    given = {port.name: inputs[port.name] for port in network.inputs}
    count = len(next(iter(given.values())))
    opened = _opened(network, network.path.stat().st_mtime_ns)
    size = batch if opened.open_batch else 1
    collected: list[list[Array]] = []
    for start in range(0, count, size):
        watch(start, count)
        rows = [_row(given[port.name][start : start + size], port) for port in network.inputs]
        with _named(network):
            collected.append([np.asarray(output, dtype=np.float32) for output in opened.run(rows)])
    return [np.concatenate(parts) for parts in zip(*collected, strict=True)]


def _row(array: Array, port: Port) -> Array:
    rows = np.asarray(array, dtype=np.float32)
    return np.ascontiguousarray(rows.transpose(CHANNELS_FIRST) if port.channels_first else rows)


@dataclass(frozen=True)
class _Opened:
    run: Run
    open_batch: bool


@lru_cache(maxsize=KEPT)
def _opened(network: Network, changed: int) -> _Opened:
    """A file ready to run. changed: its time of change, so that a new file of the same name is opened anew."""
    openers = {"onnx": _open_onnx, "tflite": _open_tflite, "savedmodel": _open_savedmodel}
    with _named(network):
        return openers[network.kind](network)


class _named:  # noqa: N801  (used as a statement)
    """What a runtime raises, as one line that names the file. The three runtimes share no base of their errors."""

    def __init__(self, network: Network) -> None:
        self.network = network

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, InputError | MemoryError) or not isinstance(error, Exception):
            return
        lines = str(error).strip().splitlines() or [type(error).__name__]
        package = PACKAGES[self.network.kind]
        problem = f"cannot be run by {package}: {lines[0][:300]}"
        raise InputError(str(self.network.path), problem) from error


def _open_onnx(network: Network) -> _Opened:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(network.path), options, providers=["CPUExecutionProvider"])
    names, outputs = [port.name for port in network.inputs], list(network.outputs)
    types = {"tensor(float)": np.float32, "tensor(float16)": np.float16, "tensor(double)": np.float64}
    known = {item.name: item for item in session.get_inputs()}
    dtypes = [types.get(known[name].type, np.float32) for name in names]

    def run(rows: list[Array]) -> list[Array]:
        feed = {name: row.astype(dtype) for name, row, dtype in zip(names, rows, dtypes, strict=True)}
        return list(session.run(outputs, feed))

    return _Opened(run, not any(isinstance(known[name].shape[0], int) for name in names))


def _open_tflite(network: Network) -> _Opened:
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=network.path.read_bytes(), num_threads=1)
    interpreter.allocate_tensors()
    inputs, outputs = tflite_ends(interpreter)
    into = [inputs[port.name] for port in network.inputs]
    out = [outputs[name] for name in network.outputs]

    def run(rows: list[Array]) -> list[Array]:
        for detail, row in zip(into, rows, strict=True):
            interpreter.set_tensor(detail["index"], _in_steps(row, detail))
        interpreter.invoke()
        return [_in_numbers(interpreter.get_tensor(detail["index"]), detail) for detail in out]

    return _Opened(run, False)


def tflite_ends(interpreter: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(inputs, outputs) of a LiteRT interpreter, by the names of its signature, or of its tensors where it has none."""
    signatures = interpreter.get_signature_list()
    if signatures:
        runner = interpreter.get_signature_runner(next(iter(signatures)))
        return runner.get_input_details(), runner.get_output_details()
    ends = (interpreter.get_input_details(), interpreter.get_output_details())
    inputs, outputs = ({item["name"]: item for item in items} for items in ends)
    return inputs, outputs


def _in_steps(row: Array, detail: Mapping[str, Any]) -> Array:
    """A float32 row as the tensor's type: round(x / scale) + zero point, clipped (LiteRT 8-bit specification)."""
    dtype, (scale, zero) = np.dtype(detail["dtype"]), detail["quantization"]
    if dtype.kind == "f" or not scale:
        return row.astype(dtype)
    limits = np.iinfo(dtype)
    steps: Array = np.rint(row / np.float32(scale)) + zero
    return steps.clip(limits.min, limits.max).astype(dtype)


def _in_numbers(values: Array, detail: Mapping[str, Any]) -> Array:
    scale, zero = detail["quantization"]
    numbers = values.astype(np.float32)
    return (numbers - zero) * np.float32(scale) if scale else numbers


def _open_savedmodel(network: Network) -> _Opened:
    import tensorflow as tf

    from toolkit.engine.saved import signature_function

    function = signature_function(network.path)
    specs = function.structured_input_signature[1]

    def run(rows: list[Array]) -> list[Array]:
        given = {port.name: tf.constant(row) for port, row in zip(network.inputs, rows, strict=True)}
        found = function(**given)
        return [found[name].numpy() for name in network.outputs]

    return _Opened(run, not any(specs[port.name].shape[0] for port in network.inputs))
