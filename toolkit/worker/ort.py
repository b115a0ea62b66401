"""Runs .onnx files with ONNX Runtime."""

from __future__ import annotations

import time
from typing import Any, Dict, List, Optional, Tuple

import common
import numpy
import onnxruntime

PROVIDERS = {"cpu": "CPUExecutionProvider", "none": "CPUExecutionProvider"}
DTYPES = {
    "tensor(float)": numpy.float32,
    "tensor(float16)": numpy.float16,
    "tensor(double)": numpy.float64,
    "tensor(uint8)": numpy.uint8,
}


def versions(runtime: str) -> Dict[str, str]:
    """Versions of Python, numpy and ONNX Runtime."""
    return dict(common.versions(runtime, onnxruntime.__version__))


class Runner:
    """One file in a session of the provider that was asked for. Inputs and outputs are bound by name."""

    def __init__(self, job: Dict[str, Any]) -> None:
        self.job = job
        self.delegate = job.get("delegate", "cpu")
        provider = PROVIDERS.get(self.delegate)
        if provider is None:
            raise common.JobError("onnxruntime has no provider %r in this worker" % self.delegate)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.get("threads", 1)
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        try:
            self.session = onnxruntime.InferenceSession(job["model"], options, providers=[provider])
        except Exception as error:  # onnxruntime's own exceptions share no base but this
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise common.JobError("onnxruntime cannot load the file: %s" % lines[0])
        ran = self.session.get_providers()
        if ran[0] != provider:
            raise common.JobError("%s was asked for and %s ran" % (provider, ran[0]), "unavailable")
        self.provider = ran[0]
        self.inputs = {item.name: item for item in self.session.get_inputs()}
        self.feed: Dict[str, Any] = {}

    def set_inputs(self, given: Dict[str, Any]) -> None:
        """Fill the inputs: from `given` (name -> array with a batch of 1), else seeded noise, 0..1 or uint8."""
        names = common.match(given, list(self.inputs), "input") if given else {}
        rng = numpy.random.default_rng(self.job.get("seed", 0))
        for name, item in self.inputs.items():
            source = next((outer for outer, inner in names.items() if inner == name), None)
            shape = [size if isinstance(size, int) else 1 for size in item.shape]
            dtype = DTYPES.get(item.type, numpy.float32)
            array = common.noise(rng, shape, dtype) if source is None else numpy.asarray(given[source])
            self.feed[name] = self._fit(source or name, array, item)

    def invoke(self) -> None:
        """One inference on the inputs that were set."""
        self.session.run(None, self.feed)

    def run_all(self, arrays: Dict[str, Any], count: int) -> Tuple[Dict[str, Any], float]:
        """Outputs by name, float32, one row at a time; and the seconds spent in the session."""
        names = common.match(arrays, list(self.inputs), "input")
        if len(names) < len(self.inputs):
            missing = sorted(set(self.inputs) - set(names.values()))
            raise common.JobError("inputs without data: %s" % ", ".join(missing))
        known = [item.name for item in self.session.get_outputs()]
        wanted = common.match(self.job["outputs"], known, "output")
        ask = list(wanted.values())
        collected: Optional[List[Any]] = None
        run, clock, spent = self.session.run, time.perf_counter, 0.0
        block_rows = common.block_rows(arrays)
        for start in range(0, count, block_rows):
            rows = slice(start, start + block_rows)
            blocks = [(inner, self._fit(name, arrays[name][rows], self.inputs[inner])) for name, inner in names.items()]
            for row in range(min(block_rows, count - start)):
                feed = {inner: block[row : row + 1] for inner, block in blocks}
                before = clock()
                outputs = run(ask, feed)
                spent += clock() - before
                if collected is None:
                    collected = [numpy.empty((count,) + out.shape[1:], dtype=numpy.float32) for out in outputs]
                for store, out in zip(collected, outputs):
                    store[start + row] = out[0]
        return dict(zip(wanted, collected or [])), spent

    def _fit(self, name: str, array: Any, item: Any) -> Any:
        """Rows of data as the file takes them, one at a time."""
        layout = self.job.get("layouts", {}).get(name)
        return common.fit(name, array, item.shape, DTYPES.get(item.type, numpy.float32), layout)

    def arena_bytes(self) -> None:
        """ONNX Runtime shows none."""

    def facts(self) -> Dict[str, Any]:
        """What ran."""
        return {
            "versions": versions("onnxruntime"),
            "threads": self.job.get("threads", 1),
            "delegate": self.delegate,
            "kernel_path": self.provider,
            "peak_rss_kib": common.peak_rss_kib(),
        }
