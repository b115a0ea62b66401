"""Runs .tflite files with LiteRT, or with tflite-runtime where that is what a board has."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List, Optional, Tuple

import common
import numpy
import partitions


def _module(runtime: str) -> Any:
    """The interpreter's module, for the runtime that was asked for and no other."""
    if runtime == "tflite-runtime":
        import tflite_runtime.interpreter as module
    else:
        import ai_edge_litert.interpreter as module
    return module


def versions(runtime: str) -> Dict[str, str]:
    """Versions of Python, numpy and the runtime, which really starts."""
    _module(runtime)
    if runtime == "tflite-runtime":
        import tflite_runtime as package
    else:
        import ai_edge_litert as package
    version = getattr(package, "__version__", "")
    if not version:
        from importlib import metadata

        version = metadata.version("tflite-runtime" if runtime == "tflite-runtime" else "ai-edge-litert")
    return dict(common.versions(runtime, version))


class Runner:
    """One file, loaded and allocated. Inputs and outputs are bound by the names of the file's signature."""

    def __init__(self, job: Dict[str, Any]) -> None:
        self.job = job
        self.runtime = job["runtime"]
        self.delegate = job.get("delegate", "xnnpack")
        self.module = _module(self.runtime)
        if self.delegate not in ("xnnpack", "none"):
            raise common.JobError("%s has no delegate %r" % (self.runtime, self.delegate))
        kernels = self.module.OpResolverType
        resolver = kernels.AUTO if self.delegate == "xnnpack" else kernels.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        self.interpreter = self._interpreter(resolver, job.get("threads", 1))
        self.kernels = self._kernel_path()
        self.invoke = self.interpreter.invoke

    def _interpreter(self, resolver: Any, threads: int) -> Any:
        interpreter = self.module.Interpreter(
            model_path=self.job["model"], num_threads=threads, experimental_op_resolver_type=resolver
        )
        self._resize(interpreter)
        interpreter.allocate_tensors()
        return interpreter

    def _resize(self, interpreter: Any) -> None:
        """The job's batch, where the file leaves it free; JobError where it has another."""
        size = common.batch(self.job)
        for detail in interpreter.get_input_details():
            shape = list(detail["shape"])
            stated = list(detail.get("shape_signature", shape)) or shape
            if shape and stated[0] == -1 and shape[0] != size:
                interpreter.resize_tensor_input(detail["index"], [size] + shape[1:])
            elif shape and stated[0] != -1:
                common.check_batch(self.job, detail["name"], int(shape[0]))

    def _kernel_path(self) -> str:
        """What computes: a delegate counts only when the execution plan holds a node of it."""
        operators = [item["op_name"] for item in self.interpreter._get_ops_details()]
        delegated = operators.count("DELEGATE")
        if self.delegate == "none":
            return "built-in kernels"
        if not delegated:
            raise common.JobError("the XNNPACK delegate took no operator of the file; use delegate none", "unavailable")
        # the plan keeps the operators a delegate replaced, so only the delegate's own nodes can be counted
        return "XNNPACK (%d partition%s)" % (delegated, "" if delegated == 1 else "s")

    def _ends(self) -> Tuple[Dict[str, Any], Dict[str, Any]]:
        """(inputs, outputs), each name -> tensor details."""
        details: Tuple[Dict[str, Any], Dict[str, Any]] = ({}, {})
        signatures = self.interpreter.get_signature_list()
        if signatures:
            key = next(iter(signatures))
            runner = self.interpreter.get_signature_runner(key)
            return runner.get_input_details(), runner.get_output_details()
        for found, items in zip(details, (self.interpreter.get_input_details(), self.interpreter.get_output_details())):
            found.update((item["name"], item) for item in items)
        return details

    def set_inputs(self, given: Dict[str, Any]) -> None:
        """Fill the inputs: from `given` (name -> array with a batch of 1), else seeded noise, 0..1 or uint8."""
        inputs, _ = self._ends()
        names = common.match(given, list(inputs), "input") if given else {}
        rng = numpy.random.default_rng(self.job.get("seed", 0))
        for name, detail in inputs.items():
            source = next((outer for outer, inner in names.items() if inner == name), None)
            array = common.noise(rng, detail["shape"], detail["dtype"]) if source is None else given[source]
            self.interpreter.set_tensor(detail["index"], self._fit(source or name, detail, numpy.asarray(array)))

    def run_all(self, arrays: Dict[str, Any], count: int) -> Tuple[Dict[str, Any], float]:
        """Outputs by name, float32, one row at a time; and the seconds spent in `invoke`."""
        inputs, outputs = self._ends()
        names = common.match(arrays, list(inputs), "input")
        if len(names) < len(inputs):
            raise common.JobError("inputs without data: %s" % ", ".join(sorted(set(inputs) - set(names.values()))))
        bound = [(name, inputs[inner], arrays[name]) for name, inner in names.items()]
        read = [(outputs[name]["index"], self._store(outputs[name], count)) for name in outputs]
        set_tensor, invoke, get_tensor = (
            self.interpreter.set_tensor,
            self.interpreter.invoke,
            self.interpreter.get_tensor,
        )
        clock, spent = time.perf_counter, 0.0
        block_rows = common.block_rows(arrays)
        for start in range(0, count, block_rows):
            rows = slice(start, start + block_rows)
            blocks = [(detail["index"], self._fit(name, detail, array[rows])) for name, detail, array in bound]
            for row in range(min(block_rows, count - start)):
                for index, block in blocks:
                    set_tensor(index, block[row : row + 1])
                before = clock()
                invoke()
                spent += clock() - before
                for index, store in read:
                    store[start + row] = get_tensor(index)[0]
        wanted = common.match(self.job["outputs"], list(outputs), "output")
        raw = {name: store for name, (_, store) in zip(outputs, read)}
        return {name: self._as_float(outputs[inner], raw[inner]) for name, inner in wanted.items()}, spent

    def _store(self, detail: Dict[str, Any], count: int) -> Any:
        if detail["shape"][0] != 1:
            raise common.JobError("the file has a batch of %d, files are delivered with 1" % detail["shape"][0])
        return numpy.empty((count,) + tuple(detail["shape"][1:]), dtype=detail["dtype"])

    def _fit(self, name: str, detail: Dict[str, Any], array: Any) -> Any:
        """Rows of data as the tensor takes them; the tensor's own batch is the job's."""
        if self.job.get("layouts", {}).get(name) == "NCHW":
            array = array.transpose(0, 3, 1, 2)
        shape = tuple(int(size) for size in detail["shape"])
        if shape[0] != common.batch(self.job):
            raise common.JobError("input %r has a batch of %d, files are delivered with 1" % (name, shape[0]))
        if array.shape[1:] != shape[1:]:
            raise common.JobError("input %r takes %s, the data is %s" % (name, shape, array.shape))
        scale, zero = detail["quantization"]
        dtype = detail["dtype"]
        if array.dtype == dtype:
            return numpy.ascontiguousarray(array)
        if dtype == numpy.uint8 and not scale:
            raise common.JobError("input %r takes uint8 pixels, the data is %s" % (name, array.dtype))
        return common.quantize(array, dtype, scale, zero) if scale else array.astype(dtype)

    def _as_float(self, detail: Dict[str, Any], array: Any) -> Any:
        scale, zero = detail["quantization"]
        return common.dequantize(array, scale, zero) if scale else array.astype(numpy.float32)

    def arena_bytes(self) -> Optional[int]:
        """Span of the tensors' addresses under the built-in kernels: the arena a device without delegates needs.

        Constants lie in the file and have memory before allocation; inputs, activations and temporaries only after.
        """
        kernels = self.module.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
        plain = self.module.Interpreter(model_path=self.job["model"], experimental_op_resolver_type=kernels)
        constants = {item["index"] for item in plain.get_tensor_details() if _memory(plain, item["index"])}
        try:
            self._resize(plain)
            plain.allocate_tensors()
        except (RuntimeError, ValueError):
            return None
        found = [_memory(plain, item["index"]) for item in plain.get_tensor_details() if item["index"] not in constants]
        return _spans([memory for memory in found if memory])

    def layers(self) -> Dict[str, Any]:
        """Each operator's share, by LiteRT's own profiler; and what the delegate took of them."""
        if self.runtime != "litert" or self.delegate != "xnnpack":
            why = "%s has no profile with delegate %s" % (self.runtime, self.delegate)
            return dict(self.taken(), layers=[], why=why)
        import litert_profile

        found: Dict[str, Any] = litert_profile.layers(os.path.dirname(self.module.__file__), self.job["model"])
        return dict(self.taken(), **found)

    def taken(self) -> Dict[str, Any]:
        """Places of the operators in each piece that the delegate took, in the order they run; {} without one."""
        if self.delegate == "none":
            return {}
        return {"pieces": partitions.pieces(self.interpreter._get_ops_details())}

    def facts(self) -> Dict[str, Any]:
        """What ran."""
        return {
            "versions": versions(self.runtime),
            "threads": self.job.get("threads", 1),
            "delegate": self.delegate,
            "kernel_path": self.kernels,
            "peak_rss_kib": common.peak_rss_kib(),
        }


def _memory(interpreter: Any, index: int) -> Optional[Tuple[int, int]]:
    """Start and end of a tensor's memory, or None where it has none."""
    try:
        array = interpreter.tensor(index)()
    except (ValueError, RuntimeError):
        return None
    start = int(array.__array_interface__["data"][0])
    return (start, start + array.nbytes) if start and array.nbytes else None


def _spans(ranges: List[Tuple[int, int]]) -> Optional[int]:
    """Bytes spanned by (start, end) ranges; a gap larger than all of them together parts two allocations.

    Weights stored as float16 are unpacked into memory outside the arena, far away from it: spans are added up.
    """
    if not ranges:
        return None
    content = sum(end - start for start, end in ranges)
    total, (first, last) = 0, min(ranges)
    for start, end in sorted(ranges):
        if start - last > content:
            total, first = total + last - first, start
        last = max(last, end)
    return total + last - first
