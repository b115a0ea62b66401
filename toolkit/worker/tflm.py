"""Runs .tflite files with tflite-micro's own kernels on this machine: outputs and arena of a microcontroller's runtime.

The kernels are the portable reference ones; CMSIS-NN's, which a Cortex-M would use, are made to give the same integers.
Time here says nothing of a microcontroller. A file can end the process (a check in a kernel aborts it).
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import tempfile
import time
from typing import Any, Dict, Iterator, List, Optional, Tuple

import common
import numpy

ARENA = 64 * 1024 * 1024  # bytes while the need is not known: more than any microcontroller has
ALIGNMENT = 16  # bytes, of arenas in tflite-micro (MicroArenaBufferAlignment)


def _module() -> Any:
    from tflite_micro.python.tflite_micro import runtime

    return runtime


def versions(runtime: str) -> Dict[str, str]:
    """Versions of Python, numpy and tflite-micro."""
    from importlib import metadata

    _module()  # the version of what can be imported
    return dict(common.versions(runtime, metadata.version("tflite-micro")))


class Runner:
    """One file, loaded and allocated. Inputs and outputs are bound by the names of the file's signature."""

    def __init__(self, job: Dict[str, Any]) -> None:
        self.job = job
        if job.get("delegate", "none") != "none":
            raise common.JobError("tflite-micro has no delegate %r" % job["delegate"])
        if job.get("threads", 1) != 1:
            raise common.JobError("tflite-micro computes in one thread, %d were asked for" % job["threads"])
        if job.get("batch", 1) != 1:
            raise common.JobError("tflite-micro takes one image at a time, %d were asked for" % job["batch"])
        self.module = _module()
        with open(job["model"], "rb") as file:
            self.content = file.read()
        self.inputs, self.outputs = _names(self.content)
        self.interpreter = self._interpreter(max(ARENA, 10 * len(self.content)))
        self.invoke = self.interpreter.invoke

    def _interpreter(self, arena: int) -> Any:
        """With an arena of so many bytes; RuntimeError with tflite-micro's reason where that does not work."""
        reason: List[str] = []
        try:
            with _stderr_into(reason):
                return self.module.Interpreter.from_bytes(self.content, arena_size=arena)
        except RuntimeError as error:
            said = [line.strip() for line in "".join(reason).splitlines() if line.strip()]
            raise RuntimeError("%s (%s)" % (error, "; ".join(said[-2:])) if said else str(error)) from error

    def _ends(self) -> Tuple[Dict[str, Any], Dict[str, Any]]:
        """(inputs, outputs), each name -> tensor details with its place."""
        ask = self.interpreter.get_input_details, self.interpreter.get_output_details
        return tuple(  # type: ignore[return-value]
            {name: dict(details(place), index=place) for place, name in enumerate(names)}
            for details, names in zip(ask, (self.inputs, self.outputs))
        )

    def set_inputs(self, given: Dict[str, Any]) -> None:
        """Fill the inputs: from `given` (name -> array with a batch of 1), else seeded noise, 0..1 or uint8."""
        inputs, _ = self._ends()
        names = common.match(given, list(inputs), "input") if given else {}
        rng = numpy.random.default_rng(self.job.get("seed", 0))
        for name, detail in inputs.items():
            source = next((outer for outer, inner in names.items() if inner == name), None)
            array = common.noise(rng, detail["shape"], detail["dtype"]) if source is None else given[source]
            self.interpreter.set_input(self._fit(source or name, detail, numpy.asarray(array)), detail["index"])

    def run_all(self, arrays: Dict[str, Any], count: int) -> Tuple[Dict[str, Any], float]:
        """Outputs by name, float32, one row at a time; and the seconds spent in `invoke`."""
        inputs, outputs = self._ends()
        names = common.match(arrays, list(inputs), "input")
        if len(names) < len(inputs):
            raise common.JobError("inputs without data: %s" % ", ".join(sorted(set(inputs) - set(names.values()))))
        wanted = common.match(self.job["outputs"], list(outputs), "output")
        stores = {name: self._store(outputs[inner], count) for name, inner in wanted.items()}
        clock, spent = time.perf_counter, 0.0
        for row in range(count):
            for name, inner in names.items():
                detail = inputs[inner]
                self.interpreter.set_input(self._fit(name, detail, arrays[name][row : row + 1]), detail["index"])
            before = clock()
            self.invoke()
            spent += clock() - before
            for name, store in stores.items():
                store[row] = self.interpreter.get_output(outputs[wanted[name]]["index"])[0]
        return {name: _as_float(outputs[wanted[name]], store) for name, store in stores.items()}, spent

    def _store(self, detail: Dict[str, Any], count: int) -> Any:
        shape = [int(size) for size in detail["shape"]]
        if shape[0] != 1:
            raise common.JobError("the file has a batch of %d, files are delivered with 1" % shape[0])
        return numpy.empty([count] + shape[1:], dtype=detail["dtype"])

    def _fit(self, name: str, detail: Dict[str, Any], array: Any) -> Any:
        """A row of data as the tensor takes it."""
        if self.job.get("layouts", {}).get(name) == "NCHW":
            array = array.transpose(0, 3, 1, 2)
        shape = tuple(int(size) for size in detail["shape"])
        if tuple(array.shape) != shape:
            raise common.JobError("input %r takes %s, the data is %s" % (name, shape, array.shape))
        dtype, (scale, zero) = numpy.dtype(detail["dtype"]), _quantization(detail)
        if array.dtype == dtype:
            return numpy.ascontiguousarray(array)
        if dtype == numpy.uint8 and not scale:
            raise common.JobError("input %r takes uint8 pixels, the data is %s" % (name, array.dtype))
        return common.quantize(array, dtype, scale, zero) if scale else array.astype(dtype)

    def arena_bytes(self) -> Optional[int]:
        """The least arena in which it loads, found by trying: preparing takes more than what is recorded at rest.

        Pointers have 8 bytes here and 4 on a microcontroller, which therefore needs a little less.
        """
        found = re.search(r"Arena allocation total (\d+) bytes", self._allocations())
        if found is None:
            return None
        low = int(found.group(1)) // ALIGNMENT  # of what is recorded nothing can be left out
        high = low
        while not self._fits(high * ALIGNMENT):
            low, high = high + 1, 2 * high
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self._fits(middle * ALIGNMENT) else (middle + 1, high)
        return high * ALIGNMENT

    def _fits(self, arena: int) -> bool:
        """Whether it loads in an arena of so many bytes; all of it is allocated then."""
        try:
            self._interpreter(arena)
        except RuntimeError:
            return arena >= ARENA  # it does not load in any
        return True

    def _allocations(self) -> str:
        """What tflite-micro prints of its allocations."""
        said: List[str] = []
        with _stderr_into(said):
            self.interpreter.print_allocations()
        return "".join(said)

    def facts(self) -> Dict[str, Any]:
        """What ran."""
        return {
            "versions": versions(self.job["runtime"]),
            "threads": 1,
            "delegate": "none",
            "kernel_path": "tflite-micro reference kernels",
            "arena_how": "least arena in which tflite-micro loads the file, tried; with pointers of 8 bytes",
            "peak_rss_kib": common.peak_rss_kib(),
        }


@contextlib.contextmanager
def _stderr_into(said: List[str]) -> Iterator[None]:
    """Keep what compiled code writes to the process's stderr meanwhile."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as kept:
        stderr = os.dup(2)
        try:
            os.dup2(kept.fileno(), 2)
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            kept.seek(0)
            said.append(kept.read().decode("utf-8", "replace"))


def _quantization(detail: Dict[str, Any]) -> Tuple[float, int]:
    found = detail["quantization_parameters"]
    if not len(found["scales"]):
        return 0.0, 0
    return float(found["scales"][0]), int(found["zero_points"][0]) if len(found["zero_points"]) else 0


def _as_float(detail: Dict[str, Any], array: Any) -> Any:
    scale, zero = _quantization(detail)
    return common.dequantize(array, scale, zero) if scale else array.astype(numpy.float32)


def _names(content: bytes) -> Tuple[List[str], List[str]]:
    """Names of inputs and outputs in the order of the graph: the signature's, else the tensors' own."""
    from tflite_micro.tensorflow.lite.micro.python import schema_py_generated as schema

    model = schema.Model.GetRootAsModel(content, 0)
    graph = model.Subgraphs(0)
    signed = model.SignatureDefs(0) if model.SignatureDefsLength() else None

    def named(indexes: List[int], pairs: List[Any]) -> List[str]:
        names = {pair.TensorIndex(): pair.Name().decode() for pair in pairs}
        return [names.get(index) or graph.Tensors(index).Name().decode() for index in indexes]

    ends = (
        [graph.Inputs(i) for i in range(graph.InputsLength())],
        [graph.Outputs(i) for i in range(graph.OutputsLength())],
    )
    if signed is None:
        return named(ends[0], []), named(ends[1], [])
    return (
        named(ends[0], [signed.Inputs(i) for i in range(signed.InputsLength())]),
        named(ends[1], [signed.Outputs(i) for i in range(signed.OutputsLength())]),
    )
