"""Runs .onnx and .tflite files with OpenVINO on the CPU.

OpenVINO computes in bfloat16 where a processor can, unless it is told otherwise, and reads an integer file as a float
one whose integers it takes up again where it has kernels. So float32 is asked for, and what ran is read from the
execution graph of a profiled run, apart from the timed ones.
Pages: docs.openvino.ai, "CPU Device" (inference precision), "Performance counters" (exec_type).
"""

from __future__ import annotations

import time
from typing import Any, Dict, List, Optional, Tuple

import common
import numpy
import openvino
import shares

COMPUTING = ("Convolution", "GroupConvolution", "Deconvolution", "MatMul", "FullyConnected")
INTEGER_ENDS = ("i8", "i16")  # quantized; u8 are pixels
BYTE_LEVELS = 256  # of a FakeQuantize of 8 bits, at most


def versions(runtime: str) -> Dict[str, str]:
    """Versions of Python, numpy and OpenVINO."""
    return dict(common.versions(runtime, openvino.__version__.partition("-")[0]))


class Runner:
    """One file, compiled for the CPU. Inputs and outputs are bound by name."""

    def __init__(self, job: Dict[str, Any]) -> None:
        self.job = job
        self.delegate = job.get("delegate", "cpu")
        if self.delegate not in ("cpu", "none"):
            raise common.JobError("openvino has no device %r in this worker" % self.delegate)
        self.core = openvino.Core()
        self.model = self._read()
        self.compiled = self._compile()
        self.inputs = _named(self.compiled.inputs)
        self.outputs = _named(self.compiled.outputs)
        self.request = self.compiled.create_infer_request()
        self.request_profiled: Any = None
        self.feed: Dict[Any, Any] = {}

    def _read(self) -> Any:
        """The file's graph, a free batch set to the job's."""
        try:
            model = self.core.read_model(self.job["model"])
            shapes = {port: port.get_partial_shape() for port in model.inputs}
            free = {port: shape for port, shape in shapes.items() if shape.is_dynamic}
            for port, shape in free.items():
                shape[0] = openvino.Dimension(common.batch(self.job))
                free[port] = shape
            if free:
                model.reshape(free)
        except RuntimeError as error:
            raise common.JobError("openvino cannot load the file: %s" % _reason(error))
        for port in (*model.inputs, *model.outputs):
            if port.get_element_type().get_type_name() in INTEGER_ENDS:
                words = "openvino does not tell the scale of %r, which is %s: write the file with float32 ends"
                raise common.JobError(words % (port.get_any_name(), port.get_element_type().get_type_name()))
        for port in model.inputs:
            common.check_batch(self.job, port.get_any_name(), port.get_partial_shape()[0].get_length())
        return model

    def _compile(self, profile: bool = False) -> Any:
        settings: Dict[str, Any] = {
            "INFERENCE_NUM_THREADS": self.job.get("threads", 1),
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "PERF_COUNT": profile,
        }
        if self.job.get("cores"):
            settings["ENABLE_CPU_PINNING"] = False  # the process is bound to its cores already
        try:
            compiled = self.core.compile_model(self.model, "CPU", settings)
        except RuntimeError as error:
            raise common.JobError("openvino cannot compile the file: %s" % _reason(error))
        ran = list(compiled.get_property("EXECUTION_DEVICES"))
        if ran != ["CPU"]:
            raise common.JobError("openvino was asked for the CPU and took %s" % ", ".join(ran), "unavailable")
        return compiled

    def set_inputs(self, given: Dict[str, Any]) -> None:
        """Fill the inputs: from `given` (name -> array), else seeded noise, 0..1 or uint8."""
        names = common.match(given, list(self.inputs), "input") if given else {}
        rng = numpy.random.default_rng(self.job.get("seed", 0))
        for name, port in self.inputs.items():
            source = next((outer for outer, inner in names.items() if inner == name), None)
            dtype = port.get_element_type().to_dtype()
            array = common.noise(rng, port.shape, dtype) if source is None else numpy.asarray(given[source])
            self.feed[port] = self._fit(source or name, array, port)
        self.request.infer(self.feed)  # keeps the inputs: `invoke` gives none

    def invoke(self) -> None:
        """One inference on the inputs that were set."""
        self.request.infer()

    def run_all(self, arrays: Dict[str, Any], count: int) -> Tuple[Dict[str, Any], float]:
        """Outputs by name, float32, one row at a time; and the seconds spent in OpenVINO."""
        names = common.match(arrays, list(self.inputs), "input")
        if len(names) < len(self.inputs):
            missing = sorted(set(self.inputs) - set(names.values()))
            raise common.JobError("inputs without data: %s" % ", ".join(missing))
        wanted = common.match(self.job["outputs"], list(self.outputs), "output")
        ports = [self.outputs[inner] for inner in wanted.values()]
        collected: Optional[List[Any]] = None
        infer, clock, spent = self.request.infer, time.perf_counter, 0.0
        block_rows = common.block_rows(arrays)
        for start in range(0, count, block_rows):
            rows = slice(start, start + block_rows)
            blocks = [
                (self.inputs[i], self._fit(name, arrays[name][rows], self.inputs[i])) for name, i in names.items()
            ]
            for row in range(min(block_rows, count - start)):
                feed = {port: block[row : row + 1] for port, block in blocks}
                before = clock()
                found = infer(feed)
                spent += clock() - before
                outputs = [found[port] for port in ports]
                if collected is None:
                    collected = [numpy.empty((count,) + out.shape[1:], dtype=numpy.float32) for out in outputs]
                for store, out in zip(collected, outputs):
                    store[start + row] = out[0]
        return dict(zip(wanted, collected or [])), spent

    def _fit(self, name: str, array: Any, port: Any) -> Any:
        """Rows of data as the file takes them."""
        layout = self.job.get("layouts", {}).get(name)
        return common.fit(
            name, array, list(port.shape), port.get_element_type().to_dtype(), layout, size=common.batch(self.job)
        )

    def arena_bytes(self) -> None:
        """OpenVINO shows none."""

    def layers(self) -> Dict[str, Any]:
        """Each node's share of the times that OpenVINO counts."""
        found = shares.Shares("OpenVINO's performance counters")
        for _ in range(shares.RUNS):
            for item in self.profiled(again=True):
                found.add(item.node_name, item.node_type, item.real_time.total_seconds())
        result: Dict[str, Any] = found.result()
        return result

    def profiled(self, again: bool = False) -> List[Any]:
        """OpenVINO's own record of each node that ran in one profiled inference; again: of one request, once more."""
        if not self.feed:
            self.set_inputs({})
        request = self.request_profiled if again and self.request_profiled else None
        if request is None:
            request = self.request_profiled = self._compile(profile=True).create_infer_request()
        request.infer({index: self.feed[port] for index, port in enumerate(self.inputs.values())})
        return [item for item in request.get_profiling_info() if str(item.status).endswith("EXECUTED")]

    def _kernel_path(self) -> str:
        """Nodes by the type they were computed in; an error where 8-bit layers were all computed as floats."""
        # a primitive with AMX may write its type in small letters
        kinds = [item.exec_type.rpartition("_")[2].upper() for item in self.profiled() if item.node_type in COMPUTING]
        counts = {kind: kinds.count(kind) for kind in sorted(set(kinds))}
        asked = any(
            op.get_type_name() == "FakeQuantize" and op.get_attributes().get("levels", 0) <= BYTE_LEVELS
            for op in self.model.get_ops()
        )
        if asked and counts and not counts.get("I8"):
            raise common.JobError("openvino computed an 8-bit file in %s" % ", ".join(counts), "unavailable")
        parts = ["%d in %s" % (count, kind.lower()) for kind, count in counts.items()]
        return "OpenVINO CPU, layers: %s" % (", ".join(parts) or "none")

    def facts(self) -> Dict[str, Any]:
        """What ran."""
        return {
            "versions": versions("openvino"),
            "threads": self.job.get("threads", 1),
            "delegate": self.delegate,
            "kernel_path": self._kernel_path(),
            "peak_rss_kib": common.peak_rss_kib(),
        }


def _named(ports: Any) -> Dict[str, Any]:
    return {port.get_any_name(): port for port in ports}


def _reason(error: RuntimeError) -> str:
    """OpenVINO's last line says what is wrong, the first ones only where in its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else "no reason given"
